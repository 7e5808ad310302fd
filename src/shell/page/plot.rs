//! Draws a plot as SVG with plotters: lines over time, with the phases of the run shaded behind them.
//!
//! plotters writes colours into attributes. The stylesheet of the page chooses elements by these attributes, so that one drawing serves light
//! and dark. It also makes lines dashed, which tells them apart without colour.

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Rectangle, Text};
use plotters::series::LineSeries;
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, RGBColor};

use super::axis::Axis;
use crate::domain::series::PhaseKind;

/// Points of the drawing in a pixel of the page: plotters knows whole numbers only. Chosen: finer than any screen.
const FINE: u32 = 4;
/// Width of a character in heights of its font. Chosen: a bit more than that of most fonts.
const CHAR_WIDTH: f64 = 0.62;
/// plotters takes the height of a line of text where SVG has that of a font, and divides by this.
const LINE_HEIGHT: f64 = 1.24;

/// Colours by which the stylesheet knows what an element is; as they are, they are those of light pages.
pub(super) const FIRST: RGBColor = RGBColor(0x1d, 0x4e, 0xd8);
pub(super) const SECOND: RGBColor = RGBColor(0x0f, 0x76, 0x6e);
pub(super) const THIRD: RGBColor = RGBColor(0xb4, 0x53, 0x09);
pub(super) const FOURTH: RGBColor = RGBColor(0x7c, 0x3a, 0xed);
pub(super) const LIMIT: RGBColor = RGBColor(0x6b, 0x72, 0x80);
pub(super) const FORECAST: RGBColor = RGBColor(0x1e, 0x4f, 0xd9);
const GRID: RGBColor = RGBColor(0xe5, 0xe7, 0xeb);
const INK: RGBColor = RGBColor(0x4b, 0x55, 0x63);

/// The colour behind a phase; an ordinary one has none.
pub(super) const fn shade(phase: PhaseKind) -> Option<RGBColor> {
    match phase {
        PhaseKind::Running => None,
        PhaseKind::Planning => Some(RGBColor(0xe0, 0xe7, 0xff)),
        PhaseKind::Throttled => Some(RGBColor(0xfe, 0xf3, 0xc7)),
        PhaseKind::Waiting => Some(RGBColor(0xfe, 0xe2, 0xe2)),
        PhaseKind::Draining => Some(RGBColor(0xf3, 0xe8, 0xff)),
    }
}

/// The form of a plot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Ticks of time at most.
    pub(super) ticks_max: u32,
}

/// On a screen as wide as a book, and on a phone.
pub(super) const WIDE: Form = Form { width: 960, height: 264, ticks_max: 10 };
pub(super) const NARROW: Form = Form { width: 380, height: 240, ticks_max: 4 };
/// Height of the text in pixels. Chosen: as the page's small text.
const FONT: u32 = 13;
/// Room for the labels of the axes, in pixels.
const LEFT: u32 = 62;
const BELOW: u32 = 26;
const MARGIN: u32 = 10;

/// A line, in pieces where it has gaps.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) key: RGBColor,
    pub(super) pieces: Vec<Vec<(f64, f64)>>,
}

/// A time in one phase, in seconds since the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct PhaseSpan {
    pub(super) phase: PhaseKind,
    pub(super) from_s: f64,
    pub(super) to_s: f64,
}

/// What a plot shows.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) to_s: f64,
    pub(super) values: Axis,
    pub(super) lines: Vec<Line>,
    pub(super) spans: Vec<PhaseSpan>,
}

impl Chart {
    /// What is inside of the `svg` element, and its `viewBox`.
    pub(super) fn draw(&self, form: Form) -> (String, String) {
        let (width, height) = (form.width * FINE, form.height * FINE);
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
            // Only a backend that writes to a file can fail.
            let _ = self.draw_on(&area, form);
            let _ = area.present();
        }
        let inside = svg.split_once('>').and_then(|(_, inside)| inside.rsplit_once("</svg>")).map_or("", |(inside, _)| inside);
        (inside.to_owned(), format!("0 0 {width} {height}"))
    }

    fn draw_on<'a>(&self, area: &DrawingArea<SVGBackend<'a>, Shift>, form: Form) -> Drawn<SVGBackend<'a>> {
        let time = Axis::time(self.to_s, form.ticks_max);
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN * FINE)
            .margin_right(2 * MARGIN * FINE)
            .x_label_area_size(BELOW * FINE)
            .y_label_area_size(LEFT * FINE)
            .build_cartesian_2d(time.clone(), self.values.clone())?;
        for span in &self.spans {
            self.shade(&mut chart, span)?;
        }
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .bold_line_style(GRID.stroke_width(FINE))
            .axis_style(GRID.stroke_width(FINE))
            .label_style(font().color(&INK))
            .set_all_tick_mark_size(i32::try_from(FINE * 4).unwrap_or(0))
            .x_label_formatter(&|at| time.label(*at))
            .y_label_formatter(&|at| self.values.label(*at))
            .draw()?;
        for span in &self.spans {
            self.name(&mut chart, span, form)?;
        }
        for line in &self.lines {
            Self::line(&mut chart, line)?;
        }
        Ok(())
    }

    fn shade<'a>(&self, chart: &mut Context<'a, '_>, span: &PhaseSpan) -> Drawn<SVGBackend<'a>> {
        let Some(colour) = shade(span.phase) else { return Ok(()) };
        let corners = [(span.from_s, self.values.from()), (span.to_s, self.values.to())];
        chart.draw_series([Rectangle::new(corners, colour.filled())])?;
        Ok(())
    }

    /// Writes the phase into its shade if it has room there; the legend names all shades.
    fn name<'a>(&self, chart: &mut Context<'a, '_>, span: &PhaseSpan, form: Form) -> Drawn<SVGBackend<'a>> {
        if shade(span.phase).is_none() {
            return Ok(());
        }
        let plot_width = f64::from(form.width - LEFT - 3 * MARGIN);
        let room = (span.to_s - span.from_s) / self.to_s.max(1.0) * plot_width / (f64::from(FONT) * CHAR_WIDTH);
        let name = span.phase.name();
        if room < name.len() as f64 + 1.0 {
            return Ok(());
        }
        let place = (span.from_s + self.to_s * f64::from(FONT) / 3.0 / plot_width, self.values.to());
        chart.draw_series([Text::new(name, place, font().color(&INK))])?;
        Ok(())
    }

    fn line<'a>(chart: &mut Context<'a, '_>, line: &Line) -> Drawn<SVGBackend<'a>> {
        for piece in &line.pieces {
            chart.draw_series(LineSeries::new(piece.iter().copied(), line.key.stroke_width(2 * FINE)))?;
        }
        Ok(())
    }
}

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as plotters::backend::DrawingBackend>::ErrorType>>;
type Context<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

fn font() -> FontDesc<'static> {
    FontDesc::new(FontFamily::SansSerif, f64::from(FONT * FINE) * LINE_HEIGHT, FontStyle::Normal)
}

/// A colour as plotters writes it into an attribute.
pub(super) fn attribute(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_drawn_where_its_values_are() {
        let line = Line { key: FIRST, pieces: vec![vec![(0.0, 0.0), (50.0, 100.0), (100.0, 0.0)]] };
        let spans = vec![PhaseSpan { phase: PhaseKind::Waiting, from_s: 50.0, to_s: 100.0 }];
        let chart = Chart { to_s: 100.0, values: Axis::numbers(100.0, 1.0), lines: vec![line], spans };
        let (svg, view) = chart.draw(WIDE);
        assert_eq!(view, format!("0 0 {} {}", WIDE.width * FINE, WIDE.height * FINE));
        let drawn = svg.lines().find(|element| element.contains("polyline") && element.contains(&attribute(FIRST))).unwrap();
        assert!(drawn.contains(&format!("stroke-width=\"{}\"", 2 * FINE)), "{drawn}");
        assert!(svg.contains("waiting") && svg.contains("100 s") && !svg.contains("style="), "{svg}");
        assert!(!svg.contains("<svg") && !svg.contains("</svg"));
    }

    #[test]
    fn the_name_of_a_phase_is_written_whole_or_not_at_all() {
        for length_s in 1..=100 {
            let spans = vec![PhaseSpan { phase: PhaseKind::Throttled, from_s: 0.0, to_s: f64::from(length_s) }];
            let chart = Chart { to_s: 100.0, values: Axis::numbers(100.0, 1.0), lines: Vec::new(), spans };
            for (form, fits_from_s) in [(WIDE, 10), (NARROW, 28)] {
                let (svg, _) = chart.draw(form);
                let words: Vec<&str> =
                    svg.lines().filter(|line| !line.is_empty() && line.chars().all(|char| char.is_ascii_lowercase())).collect();
                assert_eq!(words, if length_s >= fits_from_s { vec!["throttled"] } else { vec![] }, "{length_s} s in {form:?}");
            }
        }
    }
}
