//! The axes of a chart: where a value is, and which values get a label.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::table::short;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    Logarithmic,
    /// Of quantiles, by how many nines they have: 90 % is one, 99 % two, so that the tail has room.
    Nines,
}

impl Scale {
    pub(crate) fn has_place(self, value: f64) -> bool {
        match self {
            Self::Linear => value.is_finite(),
            Self::Logarithmic => value.is_finite() && value > 0.0,
            Self::Nines => (0.0..1.0).contains(&value),
        }
    }

    /// Where a value is; equal distances here are equal on paper.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
            Self::Nines => -(1.0 - value).log10(),
        }
    }
}

pub(crate) struct Axis {
    scale: Scale,
    range: Range<f64>,
}

/// More labels than this run into each other.
const LABELS_MAX: usize = 12;

impl Axis {
    /// An axis that has room for all of `values`.
    pub(crate) fn over(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (mut from, mut to) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (from, to) = (from.min(value), to.max(value));
        }
        if scale != Scale::Logarithmic {
            from = 0.0;
        }
        // One value alone needs some room around it.
        if to <= from {
            to = if from > 0.0 { from * 2.0 } else { 1.0 };
        }
        Self { scale, range: from..to }
    }

    /// Keeps the highest line off the frame, and the lowest.
    pub(crate) fn with_headroom(self) -> Self {
        let Range { start, end } = self.range;
        let range = match self.scale {
            Scale::Logarithmic => start / 1.3..end * 1.3,
            Scale::Linear => start..end * 1.08,
            Scale::Nines => start..end,
        };
        Self { range, ..self }
    }

    /// 1, 2 and 5 of every power of ten inside the range; powers alone if those are too many.
    fn logarithmic_points(&self) -> Vec<f64> {
        let powers = self.range.start.log10().floor() as i32..=self.range.end.log10().ceil() as i32;
        let points = |digits: &[f64]| -> Vec<f64> {
            let of_power = |power: i32| digits.iter().map(move |digit| digit * 10f64.powi(power));
            // Floating point: what the range begins with must not miss its label by a hair.
            let slack = |point: &f64| *point >= self.range.start * 0.999 && *point <= self.range.end * 1.001;
            powers.clone().flat_map(of_power).filter(slack).collect()
        };
        let dense = points(&[1.0, 2.0, 5.0]);
        if dense.len() <= LABELS_MAX { dense } else { points(&[1.0]) }
    }

    /// Multiples of a round step, some eight of them.
    fn linear_points(&self) -> Vec<f64> {
        let rough = (self.range.end - self.range.start) / 8.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(power * 10.0);
        let count = ((self.range.end - self.range.start) / step).floor() as u32;
        (0..=count).map(|index| self.range.start + f64::from(index) * step).collect()
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (from, to) = (self.scale.place(self.range.start), self.scale.place(self.range.end));
        let part = (self.scale.place(*value) - from) / (to - from);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        match self.scale {
            Scale::Linear => self.linear_points(),
            Scale::Logarithmic => self.logarithmic_points(),
            Scale::Nines => {
                let all = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999];
                all.into_iter().filter(|quantile| *quantile <= self.range.end).collect()
            }
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        match self.scale {
            Scale::Nines => format!("{} %", (value * 1e6).round() / 1e4),
            _ => short(*value),
        }
    }
}
