use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::prelude::*;

use super::{Drawn, SIZE};
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
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(
            (low / 1.1..high * 1.1)
                .log_scale()
                .with_key_points(curve.steps().to_vec()),
            floor..100.0,
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(format!("step of an activation ({}:STEP)", surface.codec))
        .y_desc("test accuracy, %")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(("sans-serif", 14))
        .draw()?;
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
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.4))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}
