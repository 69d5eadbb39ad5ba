//! A measured accuracy surface as SVG: the paper's Fig. 3 and Fig. 7, and accuracy over a step.

/// Accuracy over one step.
mod over_step;

use plotters::coord::Shift;
use plotters::coord::combinators::{BindKeyPoints, IntoLogRange, LogCoord, WithKeyPoints};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use sft_opt::plan::AccuracyPoint;

use crate::plot::legend;
use crate::surface::LevelsSurface;

pub use over_step::over_step;

/// A chart over settings on a logarithmic scale.
type Axes<'a> =
    ChartContext<'a, SVGBackend<'a>, Cartesian2d<WithKeyPoints<LogCoord<f64>>, RangedCoordf64>>;
type Drawn = Result<String, Box<dyn std::error::Error>>;

const SIZE: (u32, u32) = (760, 440);
/// Columns and rows of the coloured map.
const MAP: (usize, usize) = (48, 28);

/// Accuracy over the kept fraction, one curve per number of bits: dots measured, lines fitted.
///
/// # Errors
/// The drawing library failed.
pub fn over_keep(surface: &LevelsSurface) -> Drawn {
    let mut svg = String::new();
    draw_over_keep(&mut svg, surface)?;
    Ok(svg)
}

/// The fitted surface in colours over kept fraction and bits, measured points as dots in the
/// colour of their accuracy.
///
/// # Errors
/// The drawing library failed.
pub fn map(surface: &LevelsSurface) -> Drawn {
    let mut svg = String::new();
    draw_map(&mut svg, surface)?;
    Ok(svg)
}

fn draw_over_keep(
    svg: &mut String,
    surface: &LevelsSurface,
) -> Result<(), Box<dyn std::error::Error>> {
    let (low, high) = surface.keep_range();
    let floor = lowest(surface).mul_add(10.0, -0.3).floor() * 10.0;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let keeps = values(surface, |p| p.keep);
    let mut chart = axes(&area, keeps, floor, "kept fraction of an activation")?;
    let bits = values(surface, |p| p.bits);
    for &q in &bits {
        let color = scale((q - bits[0]) / (bits[bits.len() - 1] - bits[0]).max(1.0));
        let fitted = (0..=100).map(|k| {
            let keep = low * (high / low).powf(f64::from(k) / 100.0);
            (keep, 100.0 * surface.fit.accuracy.at(keep, q))
        });
        // The box of the chart does not clip.
        let inside = fitted.filter(|point| (floor..=100.0).contains(&point.1));
        chart
            .draw_series(LineSeries::new(inside, color.stroke_width(2)))?
            .label(format!("{} levels", q.exp2().round()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        let measured = surface.points.iter().filter(|p| same(p.bits, q));
        chart.draw_series(
            measured.map(|p| Circle::new((p.keep, 100.0 * p.accuracy), 3, color.filled())),
        )?;
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)?;
    area.present()?;
    Ok(())
}

/// Accuracy in percent from `floor` on, over settings on a logarithmic scale.
fn axes<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    settings: Vec<f64>,
    floor: f64,
    named: &str,
) -> Result<Axes<'a>, Box<dyn std::error::Error>> {
    let low = settings.iter().copied().fold(f64::INFINITY, f64::min);
    let high = settings.iter().copied().fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(
            (low / 1.1..high * 1.1)
                .log_scale()
                .with_key_points(settings),
            floor..100.0,
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(named)
        .y_desc("test accuracy, %")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(("sans-serif", 14))
        .draw()?;
    Ok(chart)
}

fn draw_map(svg: &mut String, surface: &LevelsSurface) -> Result<(), Box<dyn std::error::Error>> {
    let ((keep_low, keep_high), (bits_low, bits_high)) =
        (surface.keep_range(), surface.bits_range());
    let low = lowest(surface);
    let high = (surface.points.iter().map(|p| p.accuracy)).fold(low, f64::max);
    let color = |accuracy: f64| scale((accuracy - low) / (high - low).max(1e-9));
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(SIZE.0 - 96);
    let mut chart = ChartBuilder::on(&left)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(
            (keep_low..keep_high)
                .log_scale()
                .with_key_points(values(surface, |p| p.keep)),
            bits_low..bits_high,
        )?;
    let keep = |k: usize| keep_low * (keep_high / keep_low).powf(k as f64 / MAP.0 as f64);
    let bits = |k: usize| bits_low + (bits_high - bits_low) * k as f64 / MAP.1 as f64;
    let cells = (0..MAP.0).flat_map(|x| (0..MAP.1).map(move |y| (x, y)));
    chart.draw_series(cells.map(|(x, y)| {
        let middle = (
            (keep(x) * keep(x + 1)).sqrt(),
            f64::midpoint(bits(y), bits(y + 1)),
        );
        let fill = color(surface.fit.accuracy.at(middle.0, middle.1)).filled();
        Rectangle::new([(keep(x), bits(y)), (keep(x + 1), bits(y + 1))], fill)
    }))?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("kept fraction of an activation")
        .y_desc("bits of a level")
        .x_label_formatter(&|x| format!("{x}"))
        .label_style(("sans-serif", 14))
        .draw()?;
    for point in &surface.points {
        let at = (point.keep, point.bits);
        chart.draw_series([
            Circle::new(at, 6, BLACK.filled()),
            Circle::new(at, 5, color(point.accuracy).filled()),
        ])?;
    }
    for step in 0..=10 {
        let share = f64::from(step) / 10.0;
        let y = 380 - 33 * step;
        right.draw(&Rectangle::new(
            [(0, y), (22, y + 33)],
            scale(share).filled(),
        ))?;
        let label = format!("{:.0} %", 100.0 * (low + share * (high - low)));
        right.draw(&Text::new(label, (28, y + 10), ("sans-serif", 14)))?;
    }
    area.present()?;
    Ok(())
}

/// The lowest measured accuracy.
fn lowest(surface: &LevelsSurface) -> f64 {
    (surface.points.iter().map(|p| p.accuracy)).fold(1.0, f64::min)
}

/// The different values of a coordinate, ascending.
fn values(surface: &LevelsSurface, of: impl Fn(&AccuracyPoint) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = surface.points.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.dedup_by(|a, b| same(*a, *b));
    values
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

/// From dark blue to yellow, even in brightness and safe for colour-blind readers.
fn scale(share: f64) -> RGBColor {
    const STOPS: [[f64; 3]; 5] = [
        [68.0, 1.0, 84.0],
        [59.0, 82.0, 139.0],
        [33.0, 145.0, 140.0],
        [94.0, 201.0, 98.0],
        [253.0, 231.0, 37.0],
    ];
    let place = share.clamp(0.0, 1.0) * 4.0;
    let left = (place as usize).min(3);
    let weight = place - left as f64;
    let [red, green, blue] = std::array::from_fn(|k| {
        (STOPS[left][k] + weight * (STOPS[left + 1][k] - STOPS[left][k])).round() as u8
    });
    RGBColor(red, green, blue)
}
