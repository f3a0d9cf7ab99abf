//! A plot of lines on two logarithmic axes, as SVG.

use std::fmt::Write;

/// A plot.
pub struct LinePlot {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    pub series: Vec<Series>,
}

/// One line of it.
pub struct Series {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
    /// The lengths of dashes and gaps, as SVG writes them; empty for a solid line.
    pub dash: &'static str,
    pub colour: &'static str,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
/// More lines than this have their names beside the plot.
const INSIDE: usize = 8;
const BESIDE: f64 = 330.0;
/// The length of the piece of line before each name there.
const SAMPLE: f64 = 28.0;

/// The dashes that most plots need.
pub const DASHED: &str = "5 4";

impl LinePlot {
    /// The picture. Points that have no logarithm are left out.
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|s| &s.points).filter(|p| p.0 > 0.0 && p.1 > 0.0);
        let range = |f: fn(&(f64, f64)) -> f64| {
            let (low, high) = all().map(f).fold((f64::INFINITY, 0.0_f64), |(a, b), v| (a.min(v), b.max(v)));
            (low.log10().floor(), high.log10().ceil())
        };
        let (x, y) = (range(|p| p.0), range(|p| p.1));
        let across = |v: f64| MARGIN + (v.log10() - x.0) / (x.1 - x.0) * (WIDTH - 2.0 * MARGIN);
        let up = |v: f64| HEIGHT - MARGIN - (v.log10() - y.0) / (y.1 - y.0) * (HEIGHT - 2.0 * MARGIN);
        let many = self.series.len() > INSIDE;
        let whole = if many { WIDTH + BESIDE } else { WIDTH };
        let tall = if many { HEIGHT.max(MARGIN + 14.0 * self.series.len() as f64) } else { HEIGHT };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{whole}\" height=\"{tall}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let mut text = |at: (f64, f64), anchor: &str, extra: &str, words: &str| {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\"{extra}>{words}</text>",
                at.0, at.1
            );
        };
        text((0.5 * WIDTH, 24.0), "middle", "", self.title);
        text((0.5 * WIDTH, HEIGHT - 16.0), "middle", "", self.x);
        let turned = format!(" transform=\"rotate(-90 16 {})\"", 0.5 * HEIGHT);
        text((16.0, 0.5 * HEIGHT), "middle", &turned, self.y);
        for decade in x.0 as i32..=x.1 as i32 {
            text((across(10.0_f64.powi(decade)), HEIGHT - MARGIN + 18.0), "middle", "", &power_of_ten(decade));
        }
        for decade in y.0 as i32..=y.1 as i32 {
            text((MARGIN - 6.0, up(10.0_f64.powi(decade)) + 4.0), "end", "", &power_of_ten(decade));
        }
        for (k, series) in self.series.iter().enumerate() {
            let fill = format!(" fill=\"{}\"", series.colour);
            let (left, gap) = if many { (WIDTH - MARGIN + 12.0, 14.0) } else { (MARGIN + 12.0, 16.0) };
            let left = if many { left + SAMPLE + 6.0 } else { left };
            text((left, MARGIN + gap * k as f64), "start", &fill, series.name);
        }
        for decade in y.0 as i32..=y.1 as i32 {
            let at = up(10.0_f64.powi(decade));
            let _ = writeln!(out, "<path d=\"M{MARGIN} {at:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - MARGIN);
        }
        for decade in x.0 as i32..=x.1 as i32 {
            let at = across(10.0_f64.powi(decade));
            let _ = writeln!(out, "<path d=\"M{at:.1} {MARGIN}V{:.1}\" stroke=\"#ddd\"/>", HEIGHT - MARGIN);
        }
        for (k, series) in self.series.iter().enumerate() {
            let points: Vec<String> = series
                .points
                .iter()
                .filter(|p| p.0 > 0.0 && p.1 > 0.0)
                .map(|p| format!("{:.1},{:.1}", across(p.0), up(p.1)))
                .collect();
            let (colour, points, dash) = (series.colour, points.join(" "), series.dash_attribute());
            let _ = writeln!(
                out,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
            );
            if many {
                let (left, y) = (WIDTH - MARGIN + 12.0, MARGIN + 14.0 * k as f64 - 4.0);
                let _ =
                    writeln!(out, "<path d=\"M{left} {y}h{SAMPLE}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>");
            }
        }
        out + "</svg>\n"
    }
}

impl Series {
    fn dash_attribute(&self) -> String {
        if self.dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{}\"", self.dash) }
    }
}

/// A label of an axis.
fn power_of_ten(decade: i32) -> String {
    if (-4..=5).contains(&decade) { 10.0_f64.powi(decade).to_string() } else { format!("1e{decade}") }
}
