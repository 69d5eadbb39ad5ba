use pyo3::prelude::*;
use sft_compress::TensorView;

use crate::array::Array;
use crate::codec::Maker;
use crate::error::{bad_argument, detached};

/// Rate and error of a codec over kept fractions and numbers of levels.
///
/// Measured on samples: the paper's beta(rho, E) of section IV-B. Between
/// measured fractions both are interpolated linearly; the numbers of levels are
/// those measured. The rate is the size of a frame relative to that of the
/// elements as float32.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
/// >>> table = sft.RateTable.measure([x], sft.Codec.activation, [0.1, 0.2, 0.4], [4, 8])
/// >>> best = table.best(0.06)
/// >>> best.rate <= 0.06, best.levels in (4, 8)
/// (True, True)
/// >>> sft.RateTable.from_json(table.to_json()) == table
/// True
#[pyclass(frozen, eq, module = "sft")]
#[derive(PartialEq)]
pub(crate) struct RateTable(sft_compress::RateTable);

/// A point of a `RateTable`.
///
/// Attributes
/// ----------
/// keep : float
///     The kept fraction.
/// levels : int
///     The number of levels.
/// rate : float
///     The size relative to float32.
/// relative_mse : float
///     The sum of squared errors relative to the sum of squares.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> import sft
/// >>> x = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
/// >>> table = sft.RateTable.measure([x], sft.Codec.activation, [0.1, 0.2, 0.4], [4, 8])
/// >>> choice = table.best(0.06)
/// >>> codec = sft.Codec.activation(keep=choice.keep, levels=choice.levels)
/// >>> round(choice.rate, 2), round(sft.measure(codec, x).bytes / x.nbytes, 2)
/// (0.06, 0.06)
#[pyclass(frozen, eq, get_all, module = "sft")]
#[derive(PartialEq)]
pub(crate) struct Choice {
    keep: f64,
    levels: u32,
    rate: f64,
    relative_mse: f64,
}

#[pymethods]
impl Choice {
    fn __repr__(&self) -> String {
        format!(
            "Choice(keep={:?}, levels={}, rate={:?}, relative_mse={:?})",
            self.keep, self.levels, self.rate, self.relative_mse
        )
    }
}

#[pymethods]
impl RateTable {
    /// Measure a codec at every kept fraction and number of levels.
    ///
    /// Parameters
    /// ----------
    /// samples : sequence of numpy.ndarray
    ///     Tensors as `Codec.encode` takes them; each counts by its elements.
    /// codec : callable
    ///     Makes a codec of ``keep`` and ``levels``, as `Codec.activation` does.
    /// keep : sequence of float
    ///     Kept fractions, ascending.
    /// levels : sequence of int
    ///     Numbers of levels, ascending.
    ///
    /// Returns
    /// -------
    /// RateTable
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     Without samples, or if `keep` or `levels` is empty or not ascending.
    /// TypeError, CodecError
    ///     As `Codec.encode`.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.linspace(-1, 1, 4096, dtype=np.float32).reshape(64, 64)
    /// >>> sft.RateTable.measure([x], sft.Codec.gradient, [0.1, 0.2], [4]).levels
    /// [4]
    #[staticmethod]
    fn measure(
        py: Python<'_>,
        samples: Vec<Bound<'_, PyAny>>,
        codec: &Bound<'_, PyAny>,
        keep: Vec<f64>,
        levels: Vec<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let levels = levels.iter().map(crate::array::levels);
        let levels = levels.collect::<PyResult<Vec<_>>>()?;
        let arrays = samples
            .iter()
            .map(|sample| Array::extract(sample, "samples"));
        let arrays = arrays.collect::<PyResult<Vec<_>>>()?;
        let parts = arrays
            .iter()
            .map(Array::parts)
            .collect::<PyResult<Vec<_>>>()?;
        let maker = Maker::new(codec);
        let table = detached(py, || {
            let views = parts
                .iter()
                .map(|&(elements, shape)| TensorView::of(elements, shape));
            let views = views.collect::<sft_compress::Result<Vec<_>>>()?;
            let make = |keep, levels| maker.make(keep, levels);
            sft_compress::RateTable::measure(&views, make, &keep, &levels)
        });
        maker.finish(table).map(Self)
    }

    /// Read a table that `to_json` wrote.
    ///
    /// Parameters
    /// ----------
    /// text : str
    ///     The table as JSON.
    ///
    /// Returns
    /// -------
    /// RateTable
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If `text` is not a table.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> text = '{"keep": [0.1], "levels": [4], "rate": [[0.02]], "relative_mse": [[0.4]]}'
    /// >>> sft.RateTable.from_json(text).rate(0.1, 4)
    /// 0.02
    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Self> {
        let table = serde_json::from_str(text);
        table
            .map(Self)
            .map_err(|error| bad_argument(format!("text is not a rate table: {error}")))
    }

    /// Write the table as JSON.
    ///
    /// Returns
    /// -------
    /// str
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> text = '{"keep":[0.1],"levels":[4],"rate":[[0.02]],"relative_mse":[[0.4]]}'
    /// >>> sft.RateTable.from_json(text).to_json() == text
    /// True
    fn to_json(&self) -> PyResult<String> {
        serde_json::to_string(&self.0).map_err(|error| bad_argument(error.to_string()))
    }

    /// The measured kept fractions, ascending.
    #[getter]
    fn keeps(&self) -> Vec<f64> {
        self.0.keeps().to_vec()
    }

    /// The measured numbers of levels, ascending.
    #[getter]
    fn levels(&self) -> Vec<u32> {
        self.0.levels().to_vec()
    }

    /// Tell the rate at a kept fraction and a number of levels.
    ///
    /// Parameters
    /// ----------
    /// keep : float
    ///     The kept fraction.
    /// levels : int
    ///     The number of levels.
    ///
    /// Returns
    /// -------
    /// float or None
    ///     None outside the measured ones.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> text = '{"keep":[0.1,0.2],"levels":[4],"rate":[[0.02,0.04]],"relative_mse":[[0.4,0.3]]}'
    /// >>> round(sft.RateTable.from_json(text).rate(0.15, 4), 9)
    /// 0.03
    fn rate(
        &self,
        keep: f64,
        #[pyo3(from_py_with = crate::array::levels)] levels: u32,
    ) -> Option<f64> {
        self.0.rate(keep, levels)
    }

    /// Tell the relative mean squared error there.
    ///
    /// Parameters
    /// ----------
    /// keep, levels
    ///     As `rate` takes them.
    ///
    /// Returns
    /// -------
    /// float or None
    ///     None outside the measured ones.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> text = '{"keep":[0.1,0.2],"levels":[4],"rate":[[0.02,0.04]],"relative_mse":[[0.4,0.3]]}'
    /// >>> sft.RateTable.from_json(text).relative_mse(0.2, 4)
    /// 0.3
    fn relative_mse(
        &self,
        keep: f64,
        #[pyo3(from_py_with = crate::array::levels)] levels: u32,
    ) -> Option<f64> {
        self.0.relative_mse(keep, levels)
    }

    /// Find the point of least error, or of highest accuracy, within a rate.
    ///
    /// Parameters
    /// ----------
    /// rate : float
    ///     Largest size relative to float32.
    /// accuracy : callable, optional
    ///     The accuracy as a function of kept fraction and number of levels, such
    ///     as a fitted surface. Without it the point of least error is taken.
    ///
    /// Returns
    /// -------
    /// Choice or None
    ///     None if every point has a higher rate.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> text = '{"keep":[0.1,0.2],"levels":[4],"rate":[[0.02,0.04]],"relative_mse":[[0.4,0.3]]}'
    /// >>> table = sft.RateTable.from_json(text)
    /// >>> table.best(0.05)
    /// Choice(keep=0.2, levels=4, rate=0.04, relative_mse=0.3)
    /// >>> table.best(0.05, lambda keep, levels: -keep).keep
    /// 0.1
    #[pyo3(signature = (rate, accuracy=None))]
    fn best(&self, rate: f64, accuracy: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Choice>> {
        let Some(accuracy) = accuracy else {
            return Ok(self.0.best(rate).map(choice));
        };
        let failure = std::cell::RefCell::new(None);
        let best = self.0.best_by(rate, |keep, levels| {
            let value = accuracy
                .call1((keep, levels))
                .and_then(|value| value.extract());
            value.unwrap_or_else(|error: PyErr| {
                failure.borrow_mut().get_or_insert(error);
                f64::NEG_INFINITY
            })
        });
        match failure.into_inner() {
            Some(error) => Err(error),
            None => Ok(best.map(choice)),
        }
    }

    fn __repr__(&self) -> String {
        format!(
            "RateTable(keeps={:?}, levels={:?})",
            self.0.keeps(),
            self.0.levels()
        )
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        let from_json = py.get_type::<Self>().getattr("from_json")?;
        Ok((from_json, (self.to_json()?,)))
    }
}

fn choice(choice: sft_compress::Choice) -> Choice {
    Choice {
        keep: choice.keep,
        levels: choice.levels,
        rate: choice.rate,
        relative_mse: choice.relative_mse,
    }
}
