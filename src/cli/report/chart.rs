//! A plane with two axes, as SVG: what all pictures are drawn on.
//!
//! Drawn four times as large as it is shown, since plotters rounds to whole pixels. Colours are the
//! light ones; the page's style sheet exchanges them by their values where it is dark.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use maud::{Markup, PreEscaped, html};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::commands::report::days::{date, midnight};
use crate::commands::report::statements::span;
use crate::error::{Error, ErrorKind, Result};

/// Okabe and Ito's palette: told apart by colour-blind eyes too.
pub const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
pub const SKY: RGBColor = RGBColor(0x56, 0xB4, 0xE9);
pub const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
pub const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
pub const RED: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
pub const PURPLE: RGBColor = RGBColor(0xCC, 0x79, 0xA7);
/// Stands on other colours, light or dark.
pub const NAVY: RGBColor = RGBColor(0x08, 0x30, 0x4E);
pub const FAINT: RGBColor = RGBColor(0xC9, 0xD1, 0xDB);
pub const GRID: RGBColor = RGBColor(0xE4, 0xE8, 0xEE);
pub const MUTED: RGBColor = RGBColor(0x5A, 0x66, 0x75);
pub const INK: RGBColor = RGBColor(0x1B, 0x23, 0x2E);

const SCALE: u32 = 4;
/// plotters divides by this what it is told.
const FONT_FACTOR: f64 = 1.24;
const FONT: f64 = 12.0;

pub type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
pub type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// In pixels as shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub width: u32,
    pub height: u32,
    /// For a phone: fewer ticks, fewer marks.
    pub is_narrow: bool,
}

impl Size {
    pub fn wide(height: u32) -> Size {
        Size { width: 1040, height, is_narrow: false }
    }

    pub fn narrow(height: u32) -> Size {
        Size { width: 340, height, is_narrow: true }
    }

    /// How many marks there is room for, side by side.
    pub fn marks_max(&self) -> usize {
        if self.is_narrow { 46 } else { 130 }
    }

    fn ticks_max(&self) -> i64 {
        if self.is_narrow { 4 } else { 11 }
    }
}

#[derive(Debug, Clone)]
pub struct Axis {
    pub from: f64,
    pub to: f64,
    /// Where, and what is written there.
    pub ticks: Vec<(f64, String)>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let part = (value - self.from) / (self.to - self.from).max(f64::MIN_POSITIVE);
        low + (part * f64::from(high - low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| at == value);
        tick.map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

/// The content of an `svg` element.
pub fn draw(
    size: Size,
    (x, y): (&Axis, &Axis),
    paint: impl FnOnce(&mut Plane<'_, '_>) -> Drawn,
) -> Result<String> {
    let mut svg = String::new();
    paint_on(&mut svg, size, (x, y), paint)
        .map_err(|error| Error::new(ErrorKind::Bug, format!("draw a picture: {error}")))?;
    let from = svg.find("<svg").and_then(|at| Some(at + svg[at..].find('>')? + 1)).unwrap_or(0);
    let to = svg.rfind("</svg>").unwrap_or(svg.len());
    Ok(svg[from..to].to_owned())
}

fn paint_on(
    svg: &mut String,
    size: Size,
    (x, y): (&Axis, &Axis),
    paint: impl FnOnce(&mut Plane<'_, '_>) -> Drawn,
) -> Drawn {
    let backend = SVGBackend::with_string(svg, (size.width * SCALE, size.height * SCALE));
    let root = backend.into_drawing_area();
    let has_labels = y.ticks.iter().any(|(_, label)| !label.is_empty());
    let left = match (has_labels, size.is_narrow) {
        (false, _) => 26,
        (true, true) => 56,
        (true, false) => 66,
    };
    let mut plane = ChartBuilder::on(&root)
        .margin_top(10 * SCALE)
        .margin_right(26 * SCALE)
        .x_label_area_size(26 * SCALE)
        .y_label_area_size(left * SCALE)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let mut mesh = plane.configure_mesh();
    mesh.disable_x_mesh()
        .x_labels(x.ticks.len().max(1))
        .y_labels(y.ticks.len().max(1))
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(SCALE))
        .axis_style(FAINT.stroke_width(SCALE))
        .set_all_tick_mark_size(3 * SCALE)
        .label_style(text(MUTED));
    if !has_labels {
        mesh.disable_y_axis().disable_y_mesh();
    }
    mesh.draw()?;
    paint(&mut plane)?;
    drop(plane);
    root.present()
}

/// Of a label, at its place by the middle of its left side.
pub fn text(color: RGBColor) -> TextStyle<'static> {
    let size = FONT * f64::from(SCALE) * FONT_FACTOR;
    ("sans-serif", size).into_font().color(&color).pos(Pos::new(HPos::Left, VPos::Bottom))
}

pub fn line(color: RGBColor, width: u32) -> ShapeStyle {
    color.stroke_width(width * SCALE)
}

/// Of something as large on the screen.
pub fn pixels(number: i32) -> i32 {
    number * SCALE as i32
}

/// Two drawings of one picture, of which the page shows the one that fits.
pub fn picture(
    id: &str,
    (title, description): (&str, &str),
    (wide, narrow): (Size, Size),
    draw: impl Fn(Size) -> Result<String>,
) -> Result<Markup> {
    let view = |size: Size| format!("0 0 {} {}", size.width * SCALE, size.height * SCALE);
    let (large, small) = (draw(wide)?, draw(narrow)?);
    let names = format!("{id}-title {id}-text");
    Ok(html! {
        div.chart {
            svg.wide viewBox=(view(wide)) role="img" aria-labelledby=(names) {
                title id={ (id) "-title" } { (title) }
                desc id={ (id) "-text" } { (description) }
                (PreEscaped(large))
            }
            svg.narrow viewBox=(view(narrow)) role="img" aria-label={ (title) ". " (description) } {
                (PreEscaped(small))
            }
        }
    })
}

/// Seconds: the coordinate of a moment.
pub fn at(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

pub fn at_day(day: Date) -> f64 {
    at(midnight(day))
}

pub fn time_axis(from: Timestamp, to: Timestamp, size: Size) -> Axis {
    let seconds = (to.duration_since(from).as_secs()).max(1);
    let ticks = match seconds / 86_400 {
        0..=2 => hours(from, to, seconds, size.ticks_max()),
        days => whole_days(from, to, days, size.ticks_max()),
    };
    Axis { from: at(from), to: at(to).max(at(from) + 1.0), ticks }
}

fn hours(from: Timestamp, to: Timestamp, seconds: i64, ticks_max: i64) -> Vec<(f64, String)> {
    let steps = [600, 1800, 3600, 7200, 10_800, 21_600, 43_200];
    let step = steps.into_iter().find(|step| seconds / step <= ticks_max).unwrap_or(43_200);
    let first = (from.as_second() / step + 1) * step;
    let ticks = (0..).map(|n| first + n * step).take_while(|tick| *tick <= to.as_second());
    let label = |tick: i64| {
        let time = Timestamp::from_second(tick).unwrap_or(from).to_zoned(TimeZone::UTC);
        (tick as f64, time.strftime("%H:%M").to_string())
    };
    ticks.map(label).collect()
}

fn whole_days(from: Timestamp, to: Timestamp, days: i64, ticks_max: i64) -> Vec<(f64, String)> {
    let steps = [1, 2, 7, 14, 28, 91, 182, 365, 730, 3650];
    let step = steps.into_iter().find(|step| days / step <= ticks_max).unwrap_or(3650);
    let shape = if days > 400 { "%b %Y" } else { "%b %-d" };
    let first = date(from).tomorrow().unwrap_or(date(from));
    let next = |day: &Date| day.checked_add(step.days()).ok();
    let ticks = std::iter::successors(Some(first), next).take_while(|day| midnight(*day) <= to);
    ticks.map(|day| (at_day(day), day.strftime(shape).to_string())).collect()
}

/// Whole days, the last included.
pub fn day_axis(first: Date, last: Date, size: Size) -> Axis {
    time_axis(midnight(first), midnight(last.tomorrow().unwrap_or(last)), size)
}

/// From 0 to a little above `max` milliseconds; the coordinate is milliseconds.
pub fn span_axis(max: u64) -> Axis {
    const STEPS: [u64; 18] = [
        1, 5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400,
        172_800, 604_800,
    ];
    let max = max.max(1000);
    let step = STEPS.into_iter().map(|step| step * 1000).find(|step| max / step < 5);
    let step = step.unwrap_or(max);
    let count = max / step + 1;
    let ticks = (0..=count).map(|n| (n * step, n * step));
    let label = |ms: u64| if ms == 0 { "0".to_owned() } else { span(ms) };
    let ticks = ticks.map(|(tick, ms)| (tick as f64, label(ms))).collect();
    Axis { from: 0.0, to: (count * step) as f64, ticks }
}

/// The coordinate is the logarithm of milliseconds, as `log` gives it.
pub fn log_span_axis(min: u64, max: u64) -> Axis {
    const STEPS: [u64; 9] = [1, 10, 60, 600, 3600, 21_600, 86_400, 604_800, 2_592_000];
    let steps = STEPS.map(|step| step * 1000);
    let from = steps.into_iter().rfind(|step| *step * 2 <= min).unwrap_or(1000);
    let to = steps.into_iter().find(|step| *step >= max && *step > from).unwrap_or(max);
    let ticks = steps.into_iter().filter(|step| (from..=to).contains(step));
    let ticks = ticks.map(|ms| (log(ms), span(ms).replace(".0 s", " s"))).collect();
    Axis { from: log(from), to: log(to).max(log(from) + 0.5) + 0.05, ticks }
}

/// Nothing is less than a second here.
pub fn log(ms: u64) -> f64 {
    (ms.max(1000) as f64).log10()
}

pub fn size_axis(max: u64) -> Axis {
    let max = max.max(1024);
    let unit = (0..6).map(|power| 1u64 << (10 * power)).rfind(|unit| max >= *unit).unwrap_or(1);
    let name = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][(unit.ilog2() / 10) as usize];
    let steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
    let step = steps.into_iter().find(|step| max / (step * unit) < 5).unwrap_or(1000);
    let count = max / (step * unit) + 1;
    let tick = |n: u64| ((n * step * unit) as f64, format!("{} {name}", n * step));
    Axis { from: 0.0, to: (count * step * unit) as f64, ticks: (0..=count).map(tick).collect() }
}
