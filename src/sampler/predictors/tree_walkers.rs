//! [`Walkers`]: chains that walk down an interval in steps of a dyadic tree, each with steps and a Brownian path of its own.

use super::brownian_tree::BrownianTree;
use crate::batch::refill;
use crate::real::Real;
use crate::sampler::context::StepContext;

/// The chains of a tile on their way.
#[derive(Debug, Default)]
pub(super) struct Walkers {
    dim: usize,
    /// The states, `d x n`.
    pub y: Vec<f64>,
    /// Their paths, chain after chain.
    paths: Vec<f64>,
    places: Vec<Place>,
}

/// An interval of the tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub level: u32,
    pub index: u64,
}

impl Walkers {
    /// Puts `n` chains before the whole way. Of their paths only the start is known.
    pub fn begin(&mut self, dim: usize, n: usize, depth: u32) {
        self.dim = dim;
        self.paths.resize(dim * n * (2 + depth as usize), 0.0);
        refill(&mut self.places, n, Place { level: 0, index: 0 });
    }

    /// The chain in column `j`.
    pub fn of(&mut self, j: usize) -> Walker<'_> {
        let (dim, len) = (self.dim, self.paths.len() / self.places.len());
        let path = &mut self.paths[j * len..(j + 1) * len];
        Walker { y: &mut self.y[j * dim..(j + 1) * dim], path, place: &mut self.places[j] }
    }
}

/// A chain on its way: it is about to take an interval.
pub(super) struct Walker<'a> {
    pub y: &'a mut [f64],
    /// The path of the noise where the chain stands; then, for each level down to the present one, at the end of the interval
    /// of that level in which it stands.
    path: &'a mut [f64],
    pub place: &'a mut Place,
}

impl Walker<'_> {
    /// `r` where the interval begins and where it ends.
    pub fn ends(&self, tree: &BrownianTree) -> (f64, f64) {
        let Place { level, index } = *self.place;
        (tree.at(level, index), tree.at(level, index + 1))
    }

    /// The noise over the interval.
    pub fn increment(&self) -> impl Iterator<Item = f64> + '_ {
        let dim = self.y.len();
        let end = (1 + self.place.level as usize) * dim;
        self.path[end..end + dim].iter().zip(&self.path[..dim]).map(|(b, a)| b - a)
    }

    /// Goes to the first interval of a level, for the chain in column `j`.
    pub fn begin<T: Real>(
        &mut self,
        cx: &StepContext<'_, T>,
        tree: &BrownianTree,
        (j, normals): (usize, &mut [T]),
        level: u32,
    ) {
        let dim = self.y.len();
        self.path[..dim].fill(0.0);
        cx.noise_of(0, j, normals);
        tree.far_end(normals, &mut self.path[dim..2 * dim]);
        self.refine(cx, tree, (j, normals), level);
    }

    /// Goes to the first of `2^halvings` parts of the interval.
    pub fn refine<T: Real>(
        &mut self,
        cx: &StepContext<'_, T>,
        tree: &BrownianTree,
        (j, normals): (usize, &mut [T]),
        halvings: u32,
    ) {
        let dim = self.y.len();
        for _ in 0..halvings {
            let Place { level, index } = *self.place;
            cx.noise_of(BrownianTree::node(level, index), j, normals);
            let (known, middle) = self.path.split_at_mut((2 + level as usize) * dim);
            let right = &known[(1 + level as usize) * dim..];
            tree.midpoint((level, index), &known[..dim], right, normals, &mut middle[..dim]);
            *self.place = Place { level: level + 1, index: 2 * index };
        }
    }

    /// Goes past the interval, to the next one of this level or the nearest below that begins there. False at the end.
    pub fn advance<T: Real>(
        &mut self,
        cx: &StepContext<'_, T>,
        tree: &BrownianTree,
        (j, normals): (usize, &mut [T]),
        level: u32,
    ) -> bool {
        let dim = self.y.len();
        let Place { level: old, index } = *self.place;
        let end = (1 + old as usize) * dim;
        self.path.copy_within(end..end + dim, 0);
        let next = index + 1;
        if next == 1 << old {
            return false;
        }
        // the longest interval that begins here is a right half: it ends where the one above it does
        let up = next.trailing_zeros();
        let reached = Place { level: old - up, index: next >> up };
        *self.place = reached;
        let above = reached.level as usize * dim;
        self.path.copy_within(above..above + dim, above + dim);
        self.refine(cx, tree, (j, normals), level.saturating_sub(reached.level));
        true
    }
}
