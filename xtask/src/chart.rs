//! A chart of what a benchmark has measured (`cargo xtask bench lab`, or another's JSON), as plain SVG: a bar for each ratio that has a goal, the spread as a line
//! over it, the goal as a mark. Ratios are drawn on a logarithmic scale, so that twice as fast is as far from 1 as twice as slow.

use std::fmt::Write;

use serde_json::Value;

use crate::error::{Error, Result};

/// Where bars begin, in pixels from the left.
const LEFT: f64 = 330.0;
/// How wide the scale is.
const WIDTH: f64 = 480.0;
/// The height of a bar with the room around it.
const HEIGHT: f64 = 26.0;
/// What is above the first bar.
const TOP: f64 = 56.0;
/// The ends of the scale. What is beyond is drawn at the end.
const ENDS: (f64, f64) = (0.01, 100.0);
/// Where the scale has lines.
const LINES: [f64; 5] = [0.01, 0.1, 1.0, 10.0, 100.0];

fn parse(rows: &str) -> Result<Value> {
    serde_json::from_str(rows).map_err(|error| Error::Other(format!("the rows are no JSON: {error}")))
}

/// What the chart of these rows is called.
pub fn file_of(rows: &str) -> Result<String> {
    Ok(match parse(rows)?["bench"].as_str() {
        None | Some("lab") => "performance.svg".to_owned(),
        Some(bench) if !bench.is_empty() && bench.bytes().all(|byte| byte.is_ascii_lowercase()) => {
            format!("performance-{bench}.svg")
        }
        Some(bench) => return Err(Error::Other(format!("there is no benchmark {bench}"))),
    })
}

/// Draws the rows of a run.
pub fn draw(rows: &str) -> Result<String> {
    let rows = parse(rows)?;
    let bars = bars(&rows);
    if bars.is_empty() {
        return Err(Error::Other("no row has a ratio with a goal: there is nothing to draw".into()));
    }
    let height = HEIGHT.mul_add(bars.len() as f64, TOP) + 30.0;
    let width = LEFT + WIDTH + 110.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\" font-weight=\"bold\">ioward, of what it is held against: below 1 is \
         faster</text>\n"
    );
    for line in LINES {
        let x = place(line);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"36\" x2=\"{x:.1}\" y2=\"{:.0}\" stroke=\"{}\"/><text x=\"{x:.1}\" y=\"{:.0}\" \
             text-anchor=\"middle\" fill=\"#666\">{line}</text>",
            height - 26.0,
            if line == 1.0 { "#888" } else { "#ddd" },
            height - 10.0
        );
    }
    for (number, bar) in bars.iter().enumerate() {
        bar.draw(&mut svg, HEIGHT.mul_add(number as f64, TOP));
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// One ratio.
struct Bar {
    name: String,
    median: f64,
    low: f64,
    high: f64,
    goal: f64,
    verdict: String,
}

impl Bar {
    fn draw(&self, svg: &mut String, top: f64) {
        let middle = top + 8.0;
        let (from, to) = (place(self.median).min(place(1.0)), place(self.median).max(place(1.0)));
        let color = match &*self.verdict {
            "met" => "#4a9",
            "MISSED" => "#c54",
            _ => "#bb8",
        };
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{color}\"/>\
             <line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" stroke=\"black\" stroke-width=\"2\"/>\
             <line x1=\"{goal:.1}\" y1=\"{:.1}\" x2=\"{goal:.1}\" y2=\"{:.1}\" stroke=\"#00c\" stroke-width=\"2\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\">{:.2} {}</text>",
            LEFT - 10.0,
            top + 12.0,
            escaped(&self.name),
            to - from,
            place(self.low),
            place(self.high),
            top - 3.0,
            top + 19.0,
            LEFT + WIDTH + 10.0,
            top + 12.0,
            self.median,
            escaped(&self.verdict),
            goal = place(self.goal),
        );
    }
}

fn bars(rows: &Value) -> Vec<Bar> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut bars = Vec::new();
    for row in list(&rows["rows"]) {
        for compared in list(&row["comparisons"]) {
            let number = |value: &Value| value.as_f64();
            let spread = &compared["spread"];
            let bar = || {
                let to = compared["to"].as_str()?;
                Some(Bar {
                    name: format!("{}, of {to}", row["name"].as_str()?),
                    median: number(&spread["median"])?,
                    low: number(&spread["low"])?,
                    high: number(&spread["high"])?,
                    goal: number(&compared["goal"])?,
                    verdict: compared["verdict"].as_str()?.to_owned(),
                })
            };
            bars.extend(bar());
        }
    }
    bars
}

/// Where a ratio is on the scale.
fn place(ratio: f64) -> f64 {
    let (least, most) = ENDS;
    let part = (ratio.clamp(least, most) / least).ln() / (most / least).ln();
    WIDTH.mul_add(part, LEFT)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_drawn_for_each_ratio_with_a_goal() {
        let rows = r#"{"rows": [{"name": "bind", "comparisons": [
            {"of": "ioward", "to": "virsh & co", "spread": {"median": 0.2, "low": 0.1, "high": 0.3}, "goal": 0.5, "verdict": "met"},
            {"of": "ioward", "to": "by hand", "spread": {"median": 2.0, "low": 1.9, "high": 2.1}, "goal": null, "verdict": null}]}]}"#;
        let svg = draw(rows).unwrap();
        assert!(svg.contains("bind, of virsh &amp; co") && svg.contains("0.20 met"), "{svg}");
        assert!(!svg.contains("by hand"), "without a goal there is nothing to hold it against");
        assert!(draw("{}").is_err() && draw("no").is_err());
    }

    #[test]
    fn each_benchmark_has_a_chart_of_its_own() {
        assert_eq!(file_of("{\"bench\": \"lab\"}").unwrap(), "performance.svg");
        assert_eq!(file_of("{\"bench\": \"planner\"}").unwrap(), "performance-planner.svg");
        assert!(file_of("{\"bench\": \"../start\"}").is_err() && file_of("{\"bench\": \"\"}").is_err());
    }

    #[test]
    fn twice_as_fast_is_as_far_from_one_as_twice_as_slow() {
        assert!((place(1.0) - place(0.5) - (place(2.0) - place(1.0))).abs() < 1e-9);
        assert_eq!(place(1000.0), LEFT + WIDTH);
    }
}
