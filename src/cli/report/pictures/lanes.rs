//! The window as a picture: a lane for each timeline, from where it branched off.

use jiff::Timestamp;
use maud::Markup;
use plotters::prelude::*;

use crate::cli::report::chart::{
    Axis, BLUE, Drawn, FAINT, INK, ORANGE, Plane, RED, SKY, Size, at, draw, line, picture, pixels,
    text, time_axis,
};
use crate::commands::report::Report;
use crate::commands::report::lanes::{Lane, Mark};
use crate::error::Result;

/// More of them are in the table only.
const LANES_MAX: usize = 12;
const LANE_HEIGHT: u32 = 58;
/// Half of a bar's height, of a lane's.
const HALF: f64 = 0.13;

struct View<'a> {
    lanes: Vec<&'a Lane>,
    from: f64,
    to: f64,
    size: Size,
}

pub fn lanes(report: &Report) -> Result<Markup> {
    let lanes: Vec<&Lane> =
        report.window.lanes.iter().filter(|lane| lane.begins.is_some()).collect();
    let lanes = lanes[lanes.len().saturating_sub(LANES_MAX)..].to_vec();
    let height = 46 + LANE_HEIGHT * u32::try_from(lanes.len().max(1)).unwrap_or(1);
    let (from, to) = (begin(report, &lanes), report.generated);
    let title = "What can be recovered, timeline by timeline";
    let text = format!(
        "{} timelines. The table below has the same in figures.",
        report.window.lanes.len()
    );
    let sizes = (Size::wide(height), Size::narrow(height));
    picture("lanes", (title, &text), sizes, |size| {
        let view = View { lanes: lanes.clone(), from: at(from), to: at(to), size };
        let x = time_axis(from, to, size);
        let y = Axis { from: -0.12, to: lanes.len().max(1) as f64, ticks: Vec::new() };
        draw(size, (&x, &y), |plane| view.paint(plane))
    })
}

/// Where the first lane begins, but not before what is told of.
fn begin(report: &Report, lanes: &[&Lane]) -> Timestamp {
    let first = lanes.iter().filter_map(|lane| lane.begins).min().unwrap_or(report.since);
    let day = jiff::SignedDuration::from_hours(1);
    let latest = report.generated.checked_sub(day).unwrap_or(report.generated);
    first.max(report.since).min(latest)
}

impl View<'_> {
    fn paint(&self, plane: &mut Plane<'_, '_>) -> Drawn {
        for (row, lane) in self.lanes.iter().enumerate() {
            self.fork(plane, row, lane)?;
        }
        for (row, lane) in self.lanes.iter().enumerate() {
            self.lane(plane, row, lane)?;
        }
        Ok(())
    }

    /// The middle of a lane; the first is on top.
    fn height(&self, row: usize) -> f64 {
        self.lanes.len() as f64 - row as f64 - 0.72
    }

    fn fork(&self, plane: &mut Plane<'_, '_>, row: usize, lane: &Lane) -> Drawn {
        let parent = self.lanes.iter().position(|other| Some(other.timeline) == lane.parent);
        let (Some(parent), Some(forked), Some(begins)) = (parent, lane.forked, lane.begins) else {
            return Ok(());
        };
        let (from, to) = (self.x(forked), self.x(begins));
        let points =
            [(from, self.height(parent)), (from, self.height(row)), (to, self.height(row))];
        plane.draw_series([PathElement::new(points.to_vec(), line(INK, 2))])?;
        let dot = Circle::new(points[0], pixels(4), INK.filled());
        plane.draw_series([dot])?;
        Ok(())
    }

    fn lane(&self, plane: &mut Plane<'_, '_>, row: usize, lane: &Lane) -> Drawn {
        let (Some(begins), Some(ends)) = (lane.begins, lane.ends) else { return Ok(()) };
        let y = self.height(row);
        let mut bar = |from: Timestamp, to: Timestamp, half: f64, color: RGBColor| -> Drawn {
            let (from, to) = self.at_least_visible(self.x(from), self.x(to));
            if to > self.from {
                plane.draw_series([Rectangle::new(
                    [(from, y - half), (to, y + half)],
                    color.filled(),
                )])?;
            }
            Ok(())
        };
        bar(begins, ends, HALF * 0.55, FAINT)?;
        for window in &lane.windows {
            bar(window.from, window.to, HALF, BLUE)?;
        }
        for gap in &lane.gaps {
            bar(gap.from, gap.to, HALF * 1.5, RED)?;
        }
        let label = format!("timeline {}", lane.timeline);
        let x = self.x(begins).min(self.to - (self.to - self.from) * 0.12);
        let above = (x + self.pixel() * 5.0, y + HALF * 1.6);
        plane.draw_series([Text::new(label, above, text(INK))])?;
        self.backups(plane, y, &lane.backups)
    }

    /// Where there are many, one for each place there is.
    fn backups(&self, plane: &mut Plane<'_, '_>, y: f64, backups: &[Mark]) -> Drawn {
        let room = (self.to - self.from) / (self.size.marks_max() as f64);
        let below = y - HALF * 2.2;
        for is_full in [false, true] {
            let mut last = f64::NEG_INFINITY;
            for backup in backups.iter().filter(|backup| backup.is_full == is_full) {
                let x = at(backup.ended);
                if x < self.from || x - last < room {
                    continue;
                }
                last = x;
                let color = match (backup.is_usable, is_full) {
                    (false, _) => RED,
                    (true, true) => ORANGE,
                    (true, false) => SKY,
                };
                match is_full {
                    true => plane.draw_series([TriangleMarker::new(
                        (x, below),
                        pixels(6),
                        color.filled(),
                    )])?,
                    false => {
                        plane.draw_series([Circle::new((x, below), pixels(2), color.filled())])?
                    }
                };
            }
        }
        Ok(())
    }

    /// In seconds.
    fn pixel(&self) -> f64 {
        (self.to - self.from) / f64::from(self.size.width)
    }

    fn x(&self, time: Timestamp) -> f64 {
        at(time).clamp(self.from, self.to)
    }

    /// Two pixels at least: a gap of seconds in three months is one all the same.
    fn at_least_visible(&self, from: f64, to: f64) -> (f64, f64) {
        let least = self.pixel() * 3.0;
        let to = to.max(from + least).min(self.to);
        (from.min(to - least), to)
    }
}
