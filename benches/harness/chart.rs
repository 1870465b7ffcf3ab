//! One line chart as SVG. Text is left to whoever shows it: no font of this machine is asked for anything.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::axis::{Axis, Scale};
use crate::driver::subject::Problem;

const SIZE: (u32, u32) = (980, 520);
/// The rest of the width is the legend's: lines are everywhere in the plot, there is no corner to put it.
const PLOT_WIDTH: u32 = 690;
const LEGEND_TOP: i32 = 56;
const LEGEND_STEP: i32 = 22;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Up to so many points are marked: they were measured, the lines between them were not.
const MARKED_MAX: usize = 8;

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: (u8, u8, u8),
    pub(crate) points: Vec<(f64, f64)>,
    /// Drawn dashed: a limit, not a contender.
    pub(crate) is_ceiling: bool,
}

impl Line {
    fn colour(&self) -> RGBColor {
        RGBColor(self.colour.0, self.colour.1, self.colour.2)
    }
}

pub(crate) struct Chart {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: (&'static str, Scale),
    pub(crate) y: (&'static str, Scale),
    pub(crate) lines: Vec<Line>,
}

type Drawn = Result<(), Box<dyn Error>>;

impl Chart {
    /// Leaves out what has no place, such as zero on a logarithm; returns whether anything is left.
    pub(crate) fn has_points(&mut self) -> bool {
        let (x, y) = (self.x.1, self.y.1);
        for line in &mut self.lines {
            line.points.retain(|point| x.has_place(point.0) && y.has_place(point.1));
        }
        self.lines.retain(|line| !line.points.is_empty());
        !self.lines.is_empty()
    }

    pub(crate) fn draw(&self, to: &Path) -> Result<(), Problem> {
        let root = SVGBackend::new(to, SIZE).into_drawing_area();
        let drawn = self.draw_on(&root);
        drawn.map_err(|error| format!("{}: {error}", to.display()).into())
    }

    fn draw_on(&self, root: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        root.fill(&WHITE)?;
        let (plot, legend) = root.split_horizontally(PLOT_WIDTH);
        self.draw_plot(&plot)?;
        self.draw_legend(&legend)?;
        root.present()?;
        Ok(())
    }

    fn draw_plot(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Axis::over(self.x.1, points().map(|point| point.0));
        let y = Axis::over(self.y.1, points().map(|point| point.1)).with_headroom();
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 19).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(46)
            .y_label_area_size(76)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style((FONT, 13).into_font().color(&INK))
            .x_desc(self.x.0)
            .y_desc(self.y.0)
            .draw()?;
        for line in &self.lines {
            let (points, style) = (line.points.iter().copied(), line.colour().stroke_width(2));
            if line.is_ceiling {
                chart.draw_series(DashedLineSeries::new(points, 7, 5, style))?;
                continue;
            }
            chart.draw_series(LineSeries::new(points.clone(), style))?;
            if line.points.len() <= MARKED_MAX {
                chart.draw_series(points.map(|point| Circle::new(point, 3, line.colour().filled())))?;
            }
        }
        Ok(())
    }

    fn draw_legend(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        let mut y = LEGEND_TOP;
        for line in &self.lines {
            let dashes: &[(i32, i32)] = if line.is_ceiling { &[(0, 8), (14, 22)] } else { &[(0, 22)] };
            for (from, to) in dashes {
                area.draw(&PathElement::new([(*from, y + 6), (*to, y + 6)], line.colour().stroke_width(2)))?;
            }
            area.draw(&Text::new(line.name.clone(), (30, y), (FONT, 13).into_font().color(&INK)))?;
            y += LEGEND_STEP;
        }
        Ok(())
    }
}
