//! [`TileFlow`]: the right-hand sides of a tile's flow, state and divergence together.

use super::likelihood_error::LikelihoodError;
use super::probes::shortest_step;
use super::sketch::{Bases, remove_from};
use crate::batch::BatchView;
use crate::math::dormand_prince::Slopes;
use crate::noise::{NoiseField, Phase, Stream};
use crate::process::{NoiseRatio, Transition};
use crate::real::Real;
use crate::score::{Culprit, Divergence, Fault, Halt, ScoreModel, Scorer, Tile};
use std::ops::Range;

/// Where the divergence comes from.
pub(super) enum Trace<'a, T: Real> {
    /// The model itself.
    Model(&'a dyn Divergence<Scalar = T>),
    /// Differences along each axis.
    Coordinates { step: f64 },
    /// Differences along random directions: signs, or else normals.
    Directions { step: f64, probes: usize, signs: bool, field: NoiseField },
    /// Hutch++, with `k` directions in the sketch and as many for the rest.
    Sketched { step: f64, k: usize, field: NoiseField },
}

impl<T: Real> Clone for Trace<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Real> Copy for Trace<'_, T> {}

impl<T: Real> Trace<'_, T> {
    /// Integrals per point: one per random direction of Hutchinson's estimator.
    pub fn integrals(self) -> usize {
        match self {
            Self::Model(_) | Self::Coordinates { .. } => 1,
            Self::Directions { probes, .. } => probes,
            Self::Sketched { k, .. } => k,
        }
    }

    /// Directions that are kept per point: those of a sketch, of its basis, and of Hutchinson's estimator.
    pub fn directions(self) -> usize {
        if let Self::Sketched { k, .. } = self { 3 * k } else { self.integrals() }
    }

    pub fn is_random(self) -> bool {
        matches!(self, Self::Directions { .. } | Self::Sketched { .. })
    }
}

/// A tile on its way. Vectors have an element, or `d`, for every point.
pub(super) struct TileFlow<'a, T: Real> {
    scorer: Scorer<'a, T>,
    trace: Trace<'a, T>,
    tile: Tile,
    clock: NoiseRatio<'a>,
    times: Vec<f64>,
    marginals: Vec<Transition>,
    states: Vec<T>,
    scores: Vec<T>,
    /// States beside the points, and the scores there.
    beside: Vec<T>,
    above: Vec<T>,
    below: Vec<T>,
    divergences: Vec<f64>,
    /// `d x probes` for every point; in a sketch its `k` directions come first.
    directions: Vec<f64>,
    /// The direction in use.
    direction: Vec<f64>,
    bases: Bases,
    scratch: Vec<T>,
    /// Scores and divergences for every point.
    work: Vec<(u64, u64)>,
    /// Calls so far: the same for every point that is still on its way, whatever the tile.
    calls: u64,
}

impl<'a, T: Real> TileFlow<'a, T> {
    pub fn new(model: &'a dyn ScoreModel<Scalar = T>, trace: Trace<'a, T>, tile: Tile, clock: NoiseRatio<'a>) -> Self {
        let (mut directions, mut scratch) = (Vec::new(), Vec::new());
        let mut bases = Bases::none();
        let draw = |directions: &mut Vec<f64>, field: NoiseField, number: usize| {
            directions.resize(tile.len() * number, 0.0);
            let stream = Stream { phase: Phase::Inner, node: 0 };
            field.fill_slabs(stream, tile.first_chain, 0, tile.dim * number, 1, directions);
        };
        let sign = |v: &mut f64| *v = 1.0_f64.copysign(*v);
        match trace {
            Trace::Model(model) => scratch.resize(model.divergence_scratch_len(tile.n), T::default()),
            Trace::Coordinates { .. } => {}
            Trace::Directions { probes, signs, field, .. } => {
                draw(&mut directions, field, probes);
                if signs {
                    directions.iter_mut().for_each(sign);
                }
            }
            Trace::Sketched { k, field, .. } => {
                draw(&mut directions, field, 2 * k);
                directions.chunks_mut(2 * k * tile.dim).for_each(|own| own[k * tile.dim..].iter_mut().for_each(sign));
                bases = Bases::new(tile.dim, k, tile.n);
            }
        }
        let direction = vec![0.0; if directions.is_empty() { 0 } else { tile.len() }];
        let vector = vec![T::default(); tile.len()];
        let probing = if matches!(trace, Trace::Model(_)) { Vec::new() } else { vector.clone() };
        Self {
            scorer: Scorer::new(model, tile.n),
            trace,
            tile,
            clock,
            times: vec![0.0; tile.n],
            marginals: vec![Transition { scale: 1.0, variance: 0.0 }; tile.n],
            states: vector.clone(),
            scores: vector,
            beside: probing.clone(),
            above: probing.clone(),
            below: probing,
            divergences: vec![0.0; tile.n],
            directions,
            direction,
            bases,
            scratch,
            work: vec![(0, 0); tile.n],
            calls: 0,
        }
    }

    /// Scores and divergences of the point in column `j`.
    pub fn work(&self, j: usize) -> (u64, u64) {
        self.work[j]
    }

    fn part(&self, columns: &Range<usize>) -> Tile {
        Tile { first_chain: self.tile.first_chain + columns.start as u64, n: columns.len(), ..self.tile }
    }

    /// Names the point that failed, in a run of columns.
    fn halt(&self, columns: &Range<usize>, mut culprit: Culprit) -> Halt<LikelihoodError> {
        culprit.column += columns.start;
        let time = self.times[culprit.column];
        Halt { order: self.calls, error: LikelihoodError::at(self.tile, time, culprit) }
    }

    /// The scores of points beside, of a run of columns, to `above` or `below`.
    fn probe(&mut self, columns: &Range<usize>, to_above: bool) -> Result<(), Halt<LikelihoodError>> {
        let own = columns.start * self.tile.dim..columns.end * self.tile.dim;
        let part = self.part(columns);
        let out = if to_above { &mut self.above[own.clone()] } else { &mut self.below[own.clone()] };
        self.scorer
            .score_at_times(&self.times[columns.clone()], &self.beside[own], part, out)
            .map_err(|culprit| self.halt(columns, culprit))
    }

    /// The divergences of a run of columns, by the model.
    fn ask_model(
        &mut self,
        model: &dyn Divergence<Scalar = T>,
        columns: &Range<usize>,
    ) -> Result<(), Halt<LikelihoodError>> {
        let d = self.tile.dim;
        let first = self.part(columns).first_chain;
        let view = BatchView::of_chains(&self.states[columns.start * d..columns.end * d], d, first);
        let (times, out) = (&self.times[columns.clone()], &mut self.divergences[columns.clone()]);
        let mut culprit = None;
        if let Err(error) = model.divergence_at_times_into(times, view, out, &mut self.scratch) {
            // it may be one point's fault: ask again, one by one
            let own = |j: usize| {
                let (view, mut out) = (view.columns(j..j + 1), [0.0]);
                let asked = model.divergence_at_times_into(
                    &times[j..j + 1],
                    view,
                    &mut out,
                    &mut vec![T::default(); self.scratch.len()],
                );
                asked.err()
            };
            let (column, error) = (0..times.len()).find_map(|j| own(j).map(|error| (j, error))).unwrap_or((0, error));
            culprit = Some(Culprit { column, fault: Fault::Failed(error) });
        } else if let Some(column) = out.iter().position(|v| !v.is_finite()) {
            culprit = Some(Culprit { column, fault: Fault::ScoreNotFinite });
        }
        culprit.map_or(Ok(()), |culprit| Err(self.halt(columns, culprit)))
    }

    /// The step of a difference at a point, in directions that move these coordinates.
    fn difference(&self, j: usize, step: f64, moved: Range<usize>) -> f64 {
        let h = if self.marginals[j].variance > 0.0 { step * self.marginals[j].std_dev() } else { step };
        let x = &self.states[j * self.tile.dim..][moved];
        x.iter().map(|&x| shortest_step(x)).fold(h, f64::max)
    }

    /// Adds the differences along the axes to the divergences.
    fn along_axes(&mut self, columns: &Range<usize>, step: f64) -> Result<(), Halt<LikelihoodError>> {
        let d = self.tile.dim;
        let own = columns.start * d..columns.end * d;
        self.beside[own.clone()].copy_from_slice(&self.states[own]);
        self.divergences[columns.clone()].fill(0.0);
        for i in 0..d {
            for to_above in [true, false] {
                for j in columns.clone() {
                    let h = self.difference(j, step, i..i + 1);
                    let x = self.states[j * d + i].as_f64();
                    self.beside[j * d + i] = T::of(if to_above { x + h } else { x - h });
                }
                self.probe(columns, to_above)?;
            }
            for j in columns.clone() {
                let (at, h) = (j * d + i, self.difference(j, step, i..i + 1));
                let x = self.states[at].as_f64();
                // the points as they were rounded
                let width = T::of(x + h).as_f64() - T::of(x - h).as_f64();
                self.divergences[j] += (self.above[at].as_f64() - self.below[at].as_f64()) / width;
                self.beside[at] = self.states[at];
            }
        }
        Ok(())
    }

    /// Takes direction number `p` of each point, of so many.
    fn take_direction(&mut self, columns: &Range<usize>, p: usize, of: usize) {
        let d = self.tile.dim;
        for j in columns.clone() {
            self.direction[j * d..(j + 1) * d].copy_from_slice(&self.directions[(j * of + p) * d..][..d]);
        }
    }

    /// The scores on both sides of each point, along its direction.
    fn probe_both_sides(&mut self, columns: &Range<usize>, step: f64) -> Result<(), Halt<LikelihoodError>> {
        let d = self.tile.dim;
        for to_above in [true, false] {
            for j in columns.clone() {
                let h = self.difference(j, step, 0..d);
                let h = if to_above { h } else { -h };
                let points = self.beside[j * d..].iter_mut().zip(&self.states[j * d..]);
                let v = &self.direction[j * d..(j + 1) * d];
                points.zip(v).for_each(|((to, x), v)| *to = T::of(x.as_f64() + h * v));
            }
            self.probe(columns, to_above)?;
        }
        Ok(())
    }

    /// `<v, J v>` along the direction of each point.
    fn along_direction(&mut self, columns: &Range<usize>, step: f64) -> Result<(), Halt<LikelihoodError>> {
        let d = self.tile.dim;
        self.probe_both_sides(columns, step)?;
        for j in columns.clone() {
            let v = &self.direction[j * d..(j + 1) * d];
            let h = self.difference(j, step, 0..d);
            let mut sum = 0.0;
            let scores = self.above[j * d..].iter().zip(&self.below[j * d..]);
            for ((above, below), (v, x)) in scores.zip(v.iter().zip(&self.states[j * d..])) {
                // the points as they were rounded: a coordinate's own slope is then right to rounding of the score
                let x = x.as_f64();
                let width = T::of(x + h * v).as_f64() - T::of(x - h * v).as_f64();
                let weight = if width == 0.0 { *v } else { v * (2.0 * h * v / width) };
                sum += weight * (above.as_f64() - below.as_f64());
            }
            self.divergences[j] = sum / (2.0 * h);
        }
        Ok(())
    }

    /// Finds the bases of the points' sketches, and the traces there.
    fn sketch(&mut self, columns: &Range<usize>, (step, k): (f64, usize)) -> Result<(), Halt<LikelihoodError>> {
        let d = self.tile.dim;
        for i in 0..k {
            self.take_direction(columns, i, 2 * k);
            self.probe_both_sides(columns, step)?;
            for j in columns.clone() {
                // a product with the Jacobian up to a factor, which a basis does not have
                let scores = self.above[j * d..].iter().zip(&self.below[j * d..]);
                let column = self.bases.column_mut(j, i).iter_mut().zip(scores);
                column.for_each(|(to, (above, below))| *to = above.as_f64() - below.as_f64());
            }
        }
        for j in columns.clone() {
            self.bases.orthonormalise(j);
            self.bases.traces[j] = 0.0;
        }
        for i in 0..k {
            for j in columns.clone() {
                // as long as a vector of signs if it is spread as they are, as an axis if it is one
                let (q, to) = (self.bases.column(j, i), &mut self.direction[j * d..(j + 1) * d]);
                let largest = q.iter().fold(0.0_f64, |largest, q| largest.max(q.abs()));
                to.iter_mut().zip(q).for_each(|(to, q)| *to = if largest > 0.0 { q / largest } else { 0.0 });
            }
            self.along_direction(columns, step)?;
            for j in columns.clone() {
                let square: f64 = self.direction[j * d..(j + 1) * d].iter().map(|v| v * v).sum();
                if square > 0.0 {
                    self.bases.traces[j] += self.divergences[j] / square;
                }
            }
        }
        Ok(())
    }

    /// The trace by the sketch, and that of what it leaves over along direction number `p`.
    fn along_sketch_and_rest(
        &mut self,
        columns: &Range<usize>,
        (step, k, p): (f64, usize, usize),
    ) -> Result<(), Halt<LikelihoodError>> {
        if p == 0 {
            self.sketch(columns, (step, k))?;
        }
        let d = self.tile.dim;
        self.take_direction(columns, k + p, 2 * k);
        for j in columns.clone() {
            remove_from(&mut self.direction[j * d..(j + 1) * d], self.bases.of(j));
        }
        self.along_direction(columns, step)?;
        for j in columns.clone() {
            self.divergences[j] += self.bases.traces[j];
        }
        Ok(())
    }
}

impl<T: Real> Slopes for TileFlow<'_, T> {
    type Error = Halt<LikelihoodError>;
    fn write(&mut self, live: &[usize], at: &[f64], y: &[f64], out: &mut [f64]) -> Result<(), Self::Error> {
        let (d, extra) = (self.tile.dim, self.trace.integrals());
        let rows = d + extra;
        self.calls += 1;
        for &j in live {
            (self.times[j], self.marginals[j]) = self.clock.at(at[j]);
            let x = self.states[j * d..(j + 1) * d].iter_mut();
            x.zip(&y[j * rows..]).for_each(|(x, y)| *x = T::of(self.marginals[j].scale * y));
        }
        for run in live.chunk_by(|a, b| a + 1 == *b) {
            let columns = run[0]..run[0] + run.len();
            let own = columns.start * d..columns.end * d;
            let part = self.part(&columns);
            self.scorer
                .score_at_times(&self.times[columns.clone()], &self.states[own.clone()], part, &mut self.scores[own])
                .map_err(|culprit| self.halt(&columns, culprit))?;
            for j in columns.clone() {
                self.work[j].0 += 1;
                let slopes = out[j * rows..j * rows + d].iter_mut().zip(&self.scores[j * d..]);
                slopes.for_each(|(e, s)| *e = -self.marginals[j].std_dev() * s.as_f64());
            }
            for p in 0..extra {
                let (scores, divergences) = match self.trace {
                    Trace::Model(model) => self.ask_model(model, &columns).map(|()| (0, 1))?,
                    Trace::Coordinates { step } => self.along_axes(&columns, step).map(|()| (2 * d as u64, 0))?,
                    Trace::Directions { step, probes, .. } => {
                        self.take_direction(&columns, p, probes);
                        self.along_direction(&columns, step).map(|()| (2, 0))?
                    }
                    Trace::Sketched { step, k, .. } => {
                        let sketch = if p == 0 { 4 * k as u64 } else { 0 };
                        self.along_sketch_and_rest(&columns, (step, k, p)).map(|()| (2 + sketch, 0))?
                    }
                };
                for j in columns.clone() {
                    self.work[j] = (self.work[j].0 + scores, self.work[j].1 + divergences);
                    // less that of N(0, I), which is known
                    let known = d as f64 * at[j] / (1.0 + at[j] * at[j]);
                    let weight = self.marginals[j].std_dev() * self.marginals[j].scale;
                    out[j * rows + d + p] = weight * self.divergences[j] + known;
                }
            }
        }
        Ok(())
    }
}
