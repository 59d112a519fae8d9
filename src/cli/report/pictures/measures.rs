//! What was measured against what was promised: exposure by day, recovery times by drill.

use maud::Markup;
use plotters::prelude::*;

use crate::cli::report::chart::{
    Axis, Drawn, GREEN, INK, NAVY, ORANGE, Plane, RED, SKY, Size, at, at_day, day_axis, draw, line,
    log, log_span_axis, picture, pixels, span_axis,
};
use crate::cli::report::pictures::buckets;
use crate::commands::report::Report;
use crate::commands::report::days::WalDay;
use crate::commands::report::recovery::Measured;
use crate::commands::report::statements::span;
use crate::error::Result;
use crate::repository::drill_record::Verdict;

/// `None`: nothing was measured.
pub fn exposure(report: &Report) -> Result<Option<Markup>> {
    let point = &report.recovery.point;
    let Some(max) = point.max_ms.max(point.objective_ms) else { return Ok(None) };
    let days = &report.wal.days;
    let (Some(first), Some(last)) = (days.first(), days.last()) else { return Ok(None) };
    let medians = days.iter().filter_map(|day| day.exposure_median_ms);
    let min = medians.chain(point.objective_ms).min().unwrap_or(max);
    let title = "For how long commits were nowhere but on their server, day by day";
    let text = format!(
        "The worst was {}. The scale is logarithmic.",
        point.max_ms.map(span).unwrap_or_default()
    );
    let sizes = (Size::wide(230), Size::narrow(230));
    let drawn = picture("exposure", (title, &text), sizes, |size| {
        let (x, y) = (day_axis(first.day, last.day, size), log_span_axis(min, max));
        draw(size, (&x, &y), |plane| {
            for bucket in buckets(days, size.marks_max(), |day| day.day) {
                let (from, to) = (at_day(bucket.from), at_day(bucket.to));
                let edges = (from + (to - from) * 0.12, to - (to - from) * 0.12);
                exposed(plane, edges, y.from, bucket.days)?;
            }
            objective(plane, &x, point.objective_ms.map(log))
        })
    });
    drawn.map(Some)
}

fn exposed(
    plane: &mut Plane<'_, '_>,
    (from, to): (f64, f64),
    floor: f64,
    days: &[WalDay],
) -> Drawn {
    let worst = days.iter().filter_map(|day| day.exposure_max_ms).max();
    let Some(worst) = worst else { return Ok(()) };
    let bar = [(from, floor), (to, log(worst).max(floor + 0.03))];
    plane.draw_series([Rectangle::new(bar, SKY.filled())])?;
    let middle = days.iter().filter_map(|day| day.exposure_median_ms).max();
    if let Some(middle) = middle.map(log) {
        let path = vec![(from, middle), (to, middle)];
        plane.draw_series([PathElement::new(path, line(NAVY, 2))])?;
    }
    Ok(())
}

/// `None`: no drill has measured any.
pub fn recovery_times(report: &Report) -> Result<Option<Markup>> {
    let time = &report.recovery.time;
    let Some(max) = time.max_ms else { return Ok(None) };
    let max = max.max(time.objective_ms.unwrap_or(0));
    let days = &report.wal.days;
    let (Some(first), Some(last)) = (days.first(), days.last()) else { return Ok(None) };
    let title = "How long recovery took, drill by drill";
    let text = format!("The longest took {}.", time.max_ms.map(span).unwrap_or_default());
    let sizes = (Size::wide(210), Size::narrow(210));
    let drawn = picture("recovery-times", (title, &text), sizes, |size| {
        let (x, y) = (day_axis(first.day, last.day, size), span_axis(max));
        draw(size, (&x, &y), |plane| {
            objective(plane, &x, time.objective_ms.map(|objective| objective as f64))?;
            time.drills.iter().try_for_each(|drill| measured(plane, drill))
        })
    });
    drawn.map(Some)
}

fn measured(plane: &mut Plane<'_, '_>, drill: &Measured) -> Drawn {
    let Some(took) = drill.rto_ms else { return Ok(()) };
    let place = (at(drill.ended), took as f64);
    let stem = vec![(place.0, 0.0), place];
    plane.draw_series([PathElement::new(stem, line(SKY, 2))])?;
    match drill.verdict {
        Verdict::Passed => plane.draw_series([Circle::new(place, pixels(4), GREEN.filled())])?,
        Verdict::Incomplete => {
            plane.draw_series([TriangleMarker::new(place, pixels(6), ORANGE.filled())])?
        }
        Verdict::Failed => plane.draw_series([Cross::new(place, pixels(5), line(RED, 3))])?,
    };
    Ok(())
}

fn objective(plane: &mut Plane<'_, '_>, x: &Axis, objective: Option<f64>) -> Drawn {
    let Some(y) = objective else { return Ok(()) };
    let points = [(x.from, y), (x.to, y)];
    let dashes = DashedLineSeries::new(points, pixels(6) as u32, pixels(4) as u32, line(INK, 1));
    plane.draw_series(dashes)?;
    Ok(())
}
