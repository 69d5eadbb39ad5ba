use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sft_opt::Accuracy;
use sft_opt::plan::{AccuracyPoint, Fit, Rate, StepCurve, StepFit, StepPoint};

use super::json::{read, write};
use crate::array::vector;
use crate::error::detached;

/// `sft.fit_accuracy` as JSON, with the residual of every point.
#[pyfunction]
pub(crate) fn _fit<'py>(
    py: Python<'py>,
    keep: &Bound<'py, PyAny>,
    bits: &Bound<'py, PyAny>,
    accuracy: &Bound<'py, PyAny>,
    scale: &str,
) -> PyResult<(String, Bound<'py, PyArray1<f64>>)> {
    let scale = read("scale", &write(&scale)?)?;
    let (keep, bits) = (vector(keep, "keep")?, vector(bits, "bits")?);
    let accuracy = vector(accuracy, "accuracy")?;
    let (keep, bits, accuracy) = (keep.as_slice()?, bits.as_slice()?, accuracy.as_slice()?);
    for (name, list) in [("bits", bits), ("accuracy", accuracy)] {
        let (found, expected) = (list.len(), keep.len());
        if found != expected {
            return Err(PyValueError::new_err(format!(
                "{name} has {found} entries, expected {expected}: one per entry of keep"
            )));
        }
    }
    let (fit, residuals) = detached(py, || -> sft_opt::Result<(Fit, Vec<f64>)> {
        let points: Vec<_> = (keep.iter().zip(bits).zip(accuracy))
            .map(|((&keep, &bits), &accuracy)| AccuracyPoint {
                keep,
                bits,
                accuracy,
            })
            .collect();
        let fit = Accuracy::fit(scale, &points)?;
        let residuals = points
            .iter()
            .map(|p| fit.accuracy.at(p.keep, p.bits) - p.accuracy)
            .collect();
        Ok((fit, residuals))
    })?;
    Ok((write(&fit)?, residuals.into_pyarray(py)))
}

/// A surface at pairs of kept fraction and bits.
#[pyfunction]
pub(crate) fn _accuracy<'py>(
    py: Python<'py>,
    surface: &str,
    keep: &Bound<'py, PyAny>,
    bits: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let surface: Accuracy = read("accuracy", surface)?;
    let (keep, bits) = (vector(keep, "keep")?, vector(bits, "bits")?);
    let pairs = keep.as_slice()?.iter().zip(bits.as_slice()?);
    let values: Vec<f64> = pairs.map(|(&keep, &bits)| surface.at(keep, bits)).collect();
    Ok(values.into_pyarray(py))
}

/// `sft.fit_steps` as JSON, with the residual of every point.
#[pyfunction]
pub(crate) fn _fit_steps<'py>(
    py: Python<'py>,
    step: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> PyResult<(String, Bound<'py, PyArray1<f64>>)> {
    let (step, value) = (vector(step, "step")?, vector(value, "value")?);
    let (step, value) = (step.as_slice()?, value.as_slice()?);
    let (found, expected) = (value.len(), step.len());
    if found != expected {
        return Err(PyValueError::new_err(format!(
            "value has {found} entries, expected {expected}: one per entry of step"
        )));
    }
    let (fit, residuals) = detached(py, || -> sft_opt::Result<(StepFit, Vec<f64>)> {
        let points = step.iter().zip(value);
        let points = points.map(|(&step, &value)| StepPoint { step, value });
        let points: Vec<_> = points.collect();
        let fit = StepCurve::fit(&points)?;
        let residual = |p: &StepPoint| fit.curve.at(p.step).unwrap_or(f64::NAN) - p.value;
        let residuals = points.iter().map(residual).collect();
        Ok((fit, residuals))
    })?;
    Ok((write(&fit)?, residuals.into_pyarray(py)))
}

/// A curve at steps; NaN outside its range.
#[pyfunction]
pub(crate) fn _step_values<'py>(
    py: Python<'py>,
    curve: &str,
    step: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let curve: StepCurve = read("curve", curve)?;
    let steps = vector(step, "step")?;
    let value = |&step: &f64| curve.at(step).unwrap_or(f64::NAN);
    let values: Vec<f64> = steps.as_slice()?.iter().map(value).collect();
    Ok(values.into_pyarray(py))
}

/// Compressed bits over raw bits of the paper's codec.
#[pyfunction]
pub(crate) fn _beta(keep: f64, bits: u32) -> Option<f64> {
    Rate::Formula.at(keep, bits)
}
