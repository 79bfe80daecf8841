//! The curve of cost against backlog as an SVG: a few lines of text, so that it can be committed beside the page. It
//! draws what it gets and knows nothing of how it was measured.

use std::fmt::Write;

use crate::figures::Count;
use crate::growth::{Growth, Point};

/// The whole picture, in user units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
/// Room for the labels around the field of the curves.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 44.0;
/// Lines across the field.
const GRID_LINES: u32 = 5;

/// Two curves in one field. The lower end of the cost axis is 0, so that a curve is as flat as it looks.
pub fn svg(growth: &Growth) -> String {
    let field = Field::around(growth);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>Processor time per message against backlog</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    grid(&mut text, &field);
    curve(&mut text, &field, &growth.store, &STORE);
    curve(&mut text, &field, &growth.deliver, &DELIVER);
    text + "</svg>\n"
}

/// How one curve looks, and where it is explained.
struct Look {
    name: &'static str,
    color: &'static str,
    legend_at: f64,
}

const STORE: Look = Look { name: "storing, as the backlog grows", color: "#0a62a6", legend_at: LEFT };
const DELIVER: Look = Look { name: "delivering, as it goes down", color: "#b8480c", legend_at: LEFT + 230.0 };

/// What the axes span.
struct Field {
    backlog_max: f64,
    cost_max: f64,
}

impl Field {
    fn around(growth: &Growth) -> Field {
        let points = || growth.store.iter().chain(&growth.deliver);
        let most = |of: fn(&Point) -> f64| points().map(of).fold(0.0, f64::max);
        Field {
            backlog_max: round_up(most(|point| point.backlog as f64)),
            cost_max: round_up(most(|point| point.cpu_micros)),
        }
    }

    fn x(&self, backlog: f64) -> f64 {
        LEFT + backlog / self.backlog_max * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, cost: f64) -> f64 {
        HEIGHT - BOTTOM - cost / self.cost_max * (HEIGHT - TOP - BOTTOM)
    }
}

/// The next 1, 2 or 5 with zeros behind it, so that a fifth of an axis is a round number too.
fn round_up(most: f64) -> f64 {
    let zeros = 10_f64.powf(most.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * zeros).into_iter().find(|round| *round >= most).unwrap_or(most)
}

fn grid(text: &mut String, field: &Field) {
    let end = WIDTH - RIGHT;
    for line in 0..=GRID_LINES {
        let share = f64::from(line) / f64::from(GRID_LINES);
        let (cost, backlog) = (field.cost_max * share, field.backlog_max * share);
        let (y, x) = (field.y(cost), field.x(backlog));
        add(text, format_args!("<path d=\"M{LEFT} {y:.1}H{end}\" stroke=\"#ddd\"/>"));
        add(
            text,
            format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{cost:.0}</text>", LEFT - 6.0, y + 4.0),
        );
        let (below, anchor) = (HEIGHT - BOTTOM + 16.0, if line == GRID_LINES { "end" } else { "middle" });
        add(
            text,
            format_args!("<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"{anchor}\">{}</text>", Count(backlog as u64)),
        );
    }
    add(text, format_args!("<text x=\"{LEFT}\" y=\"{}\">messages in the store</text>", HEIGHT - 8.0));
    add(text, format_args!("<text x=\"{end}\" y=\"16\" text-anchor=\"end\">us of processor time per message</text>"));
}

fn curve(text: &mut String, field: &Field, points: &[Point], look: &Look) {
    let places =
        points.iter().map(|point| format!("{:.1},{:.1}", field.x(point.backlog as f64), field.y(point.cpu_micros)));
    let (places, Look { name, color, legend_at }) = (places.collect::<Vec<_>>().join(" "), look);
    add(text, format_args!("<polyline points=\"{places}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>"));
    add(text, format_args!("<text x=\"{legend_at}\" y=\"16\" fill=\"{color}\">{name}</text>"));
}

fn add(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_cost_stands_higher_and_a_larger_backlog_further_right() {
        let point = |backlog, cpu_micros| Point { backlog, cpu_micros };
        let growth = Growth { store: vec![point(100, 40.0), point(900, 50.0)], deliver: vec![point(500, 90.0)] };
        let field = Field::around(&growth);
        assert_eq!((field.backlog_max, field.cost_max), (1_000.0, 100.0));
        assert!(field.y(50.0) < field.y(40.0) && field.x(900.0) > field.x(100.0));
        let drawn = svg(&growth);
        assert_eq!(drawn.matches("<polyline").count(), 2);
        let ends = format!("{:.1},{:.1}", field.x(900.0), field.y(50.0));
        assert!(drawn.contains(&ends), "{drawn}");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, end) in [(0.0, 1.0), (90.0, 100.0), (100.0, 100.0), (130.0, 200.0), (48_750.0, 50_000.0)] {
            assert_eq!(round_up(most), end, "{most}");
        }
    }

    #[test]
    fn no_points_are_an_empty_field() {
        assert!(!svg(&Growth::default()).contains("NaN"));
    }
}
