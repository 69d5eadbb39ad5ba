use plotters::prelude::*;

use super::{Drawn, SIZE, axes};
use crate::plot::legend;
use crate::surface::StepSurface;

/// Accuracy over the step: dots measured, the fitted curve, and a dashed line for no compression.
///
/// # Errors
/// The drawing library failed.
pub fn over_step(surface: &StepSurface) -> Drawn {
    let mut svg = String::new();
    draw(&mut svg, surface)?;
    Ok(svg)
}

fn draw(svg: &mut String, surface: &StepSurface) -> Result<(), Box<dyn std::error::Error>> {
    let curve = &surface.fit.curve;
    let (low, high) = curve.range();
    let raw = surface.raw_accuracy;
    let lowest = (surface.points.iter().map(|p| p.accuracy)).fold(raw, f64::min);
    let floor = lowest.mul_add(10.0, -0.3).floor() * 10.0;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let named = format!("step of an activation ({}:STEP)", surface.codec);
    let mut chart = axes(&area, curve.steps().to_vec(), floor, &named)?;
    let (blue, grey) = (RGBColor(59, 82, 139), RGBColor(120, 120, 120));
    let dashes = DashedLineSeries::new(
        [(low / 1.1, 100.0 * raw), (high * 1.1, 100.0 * raw)],
        6,
        4,
        grey.stroke_width(1),
    );
    chart
        .draw_series(dashes)?
        .label("without compression")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], grey));
    let fitted = curve.steps().iter().zip(curve.values());
    chart
        .draw_series(LineSeries::new(
            fitted.map(|(&step, value)| (step, 100.0 * value)),
            blue.stroke_width(2),
        ))?
        .label("fitted")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], blue.stroke_width(2)));
    let measured = surface.points.iter().map(|p| (p.step, 100.0 * p.accuracy));
    chart
        .draw_series(measured.map(|at| Circle::new(at, 4, blue.filled())))?
        .label("mean of the runs")
        .legend(move |(x, y)| Circle::new((x + 9, y), 4, blue.filled()));
    legend(&mut chart, SeriesLabelPosition::LowerLeft)?;
    area.present()?;
    Ok(())
}
