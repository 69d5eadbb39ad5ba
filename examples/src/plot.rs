//! Curves of test accuracy or perplexity as SVG.

use std::ops::Range;

use plotters::coord::CoordTranslate;
use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

/// What is shown of every round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Test accuracy in percent.
    Accuracy,
    /// Test perplexity of a language model.
    Perplexity,
}

/// A scheme's measure after each round.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What the legend says.
    pub name: &'static str,
    /// Position on the axis, and the measure.
    pub points: Vec<(f64, f64)>,
}

const COLORS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];

/// A picture of a measure over a logarithmic `axis`.
///
/// # Errors
/// The drawing library failed.
pub fn curves(
    axis: &str,
    measure: Measure,
    curves: &[Curve],
) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    draw(&mut svg, axis, measure, curves)?;
    Ok(svg)
}

impl Measure {
    /// What the axis says.
    fn title(self) -> &'static str {
        match self {
            Self::Accuracy => "test accuracy, %",
            Self::Perplexity => "test perplexity",
        }
    }

    /// What the axis shows for these values.
    fn range(self, values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
        match self {
            Self::Accuracy => {
                let worst = values.fold(100.0, f64::min);
                ((worst / 10.0).floor() * 10.0).min(90.0)..100.0
            }
            Self::Perplexity => {
                let best = values.clone().fold(f64::INFINITY, f64::min);
                let worst = values.filter(|value| value.is_finite()).fold(1.0, f64::max);
                0.9 * best.min(worst)..1.1 * worst
            }
        }
    }
}

fn draw(
    svg: &mut String,
    axis: &str,
    measure: Measure,
    curves: &[Curve],
) -> Result<(), Box<dyn std::error::Error>> {
    let xs = || {
        curves
            .iter()
            .flat_map(|c| &c.points)
            .map(|p| p.0)
            .filter(|x| *x > 0.0)
    };
    let low = xs().fold(f64::INFINITY, f64::min);
    let high = xs().fold(0.0, f64::max);
    let (low, high) = if low < high {
        (low / 1.3, high * 1.3)
    } else {
        (0.1, 10.0)
    };
    let values = curves.iter().flat_map(|c| &c.points).map(|p| p.1);
    let range = measure.range(values);
    let share = |&(x, y): &(f64, f64)| {
        let up = (y - range.start) / (range.end - range.start);
        ((x / low).ln() / (high / low).ln(), up)
    };
    let lines = curves.iter().map(|c| c.points.iter().map(share).collect());
    let free = free_corner(&lines.collect::<Vec<Vec<_>>>());
    let area = SVGBackend::with_string(svg, (760, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d((low..high).log_scale(), range)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(axis)
        .y_desc(measure.title())
        .x_labels(6)
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| {
            format!(
                "{y:.*}",
                usize::from(*y < 10.0 && measure == Measure::Perplexity)
            )
        })
        .label_style(("sans-serif", 14))
        .draw()?;
    for (curve, color) in curves.iter().zip(COLORS.into_iter().cycle()) {
        let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
        chart
            .draw_series(line)?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        let dots = curve
            .points
            .iter()
            .map(|&p| Circle::new(p, 3, color.filled()));
        chart.draw_series(dots)?;
    }
    legend(&mut chart, free)?;
    area.present()?;
    Ok(())
}

/// The first corner that no line goes through, of points as shares of the axes; the first of all if there
/// is none.
fn free_corner(lines: &[Vec<(f64, f64)>]) -> SeriesLabelPosition {
    /// What the legend of four curves takes.
    const SIZE: (f64, f64) = (0.37, 0.25);
    let corners = [
        (SeriesLabelPosition::LowerRight, true, false),
        (SeriesLabelPosition::UpperRight, true, true),
        (SeriesLabelPosition::LowerLeft, false, false),
        (SeriesLabelPosition::UpperLeft, false, true),
    ];
    let is_free = |(_, right, up): &(_, bool, bool)| {
        let near = |share: f64, far: bool, size| {
            if far {
                1.0 - share < size
            } else {
                share < size
            }
        };
        let mut points = lines.iter().flat_map(|line| along(line));
        !points.any(|(x, y)| near(x, *right, SIZE.0) && near(y, *up, SIZE.1))
    };
    let free = corners.into_iter().find(is_free);
    free.map_or(SeriesLabelPosition::LowerRight, |(corner, ..)| corner)
}

/// The points of a line, and some between them.
fn along(line: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    const BETWEEN: usize = 8;
    let between = line.windows(2).flat_map(|pair| {
        let ((x, y), (to_x, to_y)) = (pair[0], pair[1]);
        (1..BETWEEN).map(move |i| {
            let share = i as f64 / BETWEEN as f64;
            (x + share * (to_x - x), y + share * (to_y - y))
        })
    });
    line.iter().copied().chain(between)
}

/// Draws the labels of what a chart shows.
pub(crate) fn legend<'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, C>,
    position: SeriesLabelPosition,
) -> Result<(), Box<dyn std::error::Error>> {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.4))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_hides_no_line_where_a_corner_is_free() {
        let of = |points: &[(f64, f64)]| {
            let lines: Vec<_> = points.iter().map(|&point| vec![point]).collect();
            format!("{:?}", free_corner(&lines))
        };
        assert_eq!(of(&[(0.1, 0.1), (0.9, 0.9)]), "LowerRight");
        assert_eq!(of(&[(0.9, 0.1)]), "UpperRight");
        assert_eq!(of(&[(0.9, 0.1), (0.8, 0.9)]), "LowerLeft");
        let everywhere = [(0.9, 0.1), (0.8, 0.9), (0.1, 0.1), (0.2, 0.8)];
        assert_eq!(of(&everywhere), "LowerRight");
        let through = free_corner(&[vec![(0.5, 0.0), (0.9, 0.4)]]);
        assert_eq!(format!("{through:?}"), "UpperRight");
    }
}
