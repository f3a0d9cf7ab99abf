//! [`Tree`]: a data set cut in halves, down to leaves of 32 points.
//!
//! A node knows its points' mean, the radius of the ball about it that holds them, their mean squared distance from it,
//! and, where there are many points in few coordinates, their moments. A node is cut across the direction in which it
//! is long (one power iteration from its farthest point), at a whole number of leaves: so all leaves but the last are
//! full, and the depth is that of a balanced tree. Everything is a function of the data and its order alone.

use super::kernel_expansion::Monomials;
use crate::error::ParameterError;
use crate::parallel::in_order;
use crate::real::Real;

/// Points of a leaf, which are worked on side by side.
pub(super) const LANES: usize = 32;

/// Where there is nothing to point to.
const NONE: usize = usize::MAX;

/// Points that belong together.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The first of them, in the tree's order.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// The node of the first half; the second half's is the next one.
    children: usize,
    /// All points are within this distance of the mean.
    pub radius: f64,
    /// The mean squared distance of the points from the mean.
    pub spread: f64,
    /// Polynomials may have degrees below this.
    pub order: usize,
    /// Where the moments of the points, in units of the radius, begin, if the order is above 1.
    moments: usize,
}

impl Node {
    /// The two halves, unless this is a leaf.
    #[inline(always)]
    pub fn children(&self) -> Option<(usize, usize)> {
        if self.children == NONE { None } else { Some((self.children, self.children + 1)) }
    }

    /// Whether a point is one of the node's.
    #[inline(always)]
    pub fn holds(&self, point: usize) -> bool {
        point >= self.first && point - self.first < self.count
    }
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub(super) struct Tree<T> {
    pub dim: usize,
    pub len: usize,
    /// The mean of all points.
    pub middle: Vec<f64>,
    /// The root, then level by level.
    pub nodes: Vec<Node>,
    /// The nodes' means, from the middle.
    centres: Vec<f64>,
    pub monomials: Monomials,
    moments: Vec<f64>,
    /// For each leaf `dim` rows: the coordinates of its points, from its mean. The last leaf is filled up with zeros.
    rows: Vec<[T; LANES]>,
}

/// What is known of some points when their node has been made.
struct Part {
    centre: Vec<f64>,
    radius: f64,
    spread: f64,
    rows: Vec<[f64; LANES]>,
    halves: Option<[Vec<usize>; 2]>,
}

impl Tree<f64> {
    /// The tree of finite points, `dim` coordinates each, at least one.
    pub fn new(data: &[f64], dim: usize) -> Result<Self, ParameterError> {
        let len = data.len() / dim;
        let mut middle = vec![0.0; dim];
        for point in data.chunks_exact(dim) {
            for (sum, x) in middle.iter_mut().zip(point) {
                *sum += x / len as f64;
            }
        }
        let monomials = Monomials::new(dim);
        let mut tree =
            Self { dim, len, middle, nodes: vec![], centres: vec![], monomials, moments: vec![], rows: vec![] };
        tree.rows = vec![[0.0; LANES]; len.div_ceil(LANES) * dim];
        let mut level = vec![(0, (0..len).collect::<Vec<usize>>())];
        while !level.is_empty() {
            let parts = in_order(level.len(), |k| tree.part(data, &level[k].1));
            let mut next = Vec::with_capacity(2 * level.len());
            // the children of this level stand behind it
            let behind = tree.nodes.len() + level.len();
            for ((first, points), part) in level.iter().zip(parts) {
                let radius = ParameterError::check(
                    "the data's distance from its mean",
                    part.radius,
                    part.radius.is_finite(),
                    "at most 1e150",
                )?;
                // points that coincide need no moments
                let order = if radius > 0.0 { tree.monomials.order_for(points.len()) } else { 1 };
                let children = if part.halves.is_some() { behind + next.len() } else { NONE };
                let (count, spread) = (points.len(), part.spread);
                tree.nodes.push(Node { first: *first, count, children, radius, spread, order, moments: NONE });
                tree.centres.extend(part.centre);
                match part.halves {
                    Some([one, other]) => {
                        let middle = first + one.len();
                        next.push((*first, one));
                        next.push((middle, other));
                    }
                    None => tree.rows[first / LANES * dim..][..dim].copy_from_slice(&part.rows),
                }
            }
            level = next;
        }
        tree.add_moments();
        Ok(tree)
    }

    /// The node of these points, which are listed in their own order.
    fn part(&self, data: &[f64], points: &[usize]) -> Part {
        let (d, n) = (self.dim, points.len());
        let from_middle = |point: usize, j: usize| data[point * d + j] - self.middle[j];
        let mut centre = vec![0.0; d];
        for &point in points {
            for (j, sum) in centre.iter_mut().enumerate() {
                *sum += from_middle(point, j);
            }
        }
        centre.iter_mut().for_each(|sum| *sum /= n as f64);
        let away = |point: usize, j: usize| from_middle(point, j) - centre[j];
        let (mut farthest, mut largest, mut sum) = (points[0], 0.0_f64, 0.0);
        for &point in points {
            let square = (0..d).map(|j| away(point, j)).map(|x| x * x).sum::<f64>();
            sum += square;
            // what is not finite is farther still, and is refused
            if square > largest || square.is_nan() {
                (farthest, largest) = (point, square);
            }
        }
        // rounded up: the squares' errors are below (d + 2)/2 units of rounding
        let radius = largest.sqrt() * (1.0 + (d as f64 + 4.0) * f64::EPSILON);
        let (mut halves, mut rows) = (None, vec![]);
        if n > LANES {
            halves = Some(halve(points, d, farthest, &away));
        } else {
            rows.resize(d, [0.0; LANES]);
            for (l, &point) in points.iter().enumerate() {
                for (j, row) in rows.iter_mut().enumerate() {
                    row[l] = away(point, j);
                }
            }
        }
        Part { centre, radius, spread: sum / n as f64, rows, halves }
    }

    /// The moments of all nodes whose order needs them: from the halves, where both go as far, else from the points.
    fn add_moments(&mut self) {
        let needy: Vec<usize> = (0..self.nodes.len()).filter(|&k| self.nodes[k].order > 1).collect();
        let of_halves = |node: &Node| {
            let far_enough = |k: usize| self.nodes[k].order >= node.order;
            node.children().filter(|&(one, other)| far_enough(one) && far_enough(other))
        };
        let mut leaves = vec![0; self.len.div_ceil(LANES)];
        for (k, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.children().is_none()) {
            leaves[node.first / LANES] = k;
        }
        let mut all = in_order(needy.len(), |i| {
            let halves = of_halves(&self.nodes[needy[i]]);
            if halves.is_some() { vec![] } else { self.moments_of_points(needy[i], &leaves) }
        });
        // halves stand behind their node
        for (i, &k) in needy.iter().enumerate().rev() {
            let node = &self.nodes[k];
            let Some((one, other)) = of_halves(node) else { continue };
            let mut moments = vec![0.0; self.monomials.len(node.order)];
            for half in [one, other] {
                let Ok(at) = needy.binary_search(&half) else { continue };
                let mut part = all[at][..moments.len()].to_vec();
                let shift = self.centre(half).iter().zip(self.centre(k)).map(|(a, b)| (a - b) / node.radius);
                let (shift, factor) = (shift.collect::<Vec<f64>>(), self.nodes[half].radius / node.radius);
                self.monomials.add_part(&mut part, factor, &shift, &mut moments);
            }
            all[i] = moments;
        }
        for (&k, moments) in needy.iter().zip(all) {
            self.nodes[k].moments = self.moments.len();
            self.moments.extend(moments);
        }
    }

    /// The moments of a node, in units of its radius, point by point.
    fn moments_of_points(&self, node: usize, leaves: &[usize]) -> Vec<f64> {
        let (at, centre) = (&self.nodes[node], self.centre(node));
        let len = self.monomials.len(at.order);
        let (mut values, mut moments, mut here) = (vec![0.0; len], vec![0.0; len], vec![0.0; self.dim]);
        for &leaf in &leaves[at.first / LANES..(at.first + at.count).div_ceil(LANES)] {
            let rows = self.rows(&self.nodes[leaf]);
            for l in 0..self.nodes[leaf].count {
                let centres = self.centre(leaf).iter().zip(centre);
                for (x, ((a, b), row)) in here.iter_mut().zip(centres.zip(rows)) {
                    *x = ((a - b) + row[l]) / at.radius;
                }
                self.monomials.add(&here, &mut values, &mut moments);
            }
        }
        moments
    }
}

impl<T: Real> Tree<T> {
    /// The same tree with its points rounded to another precision.
    pub fn cast<U: Real>(&self) -> Tree<U> {
        Tree {
            dim: self.dim,
            len: self.len,
            middle: self.middle.clone(),
            nodes: self.nodes.clone(),
            centres: self.centres.clone(),
            monomials: self.monomials.clone(),
            moments: self.moments.clone(),
            rows: self.rows.iter().map(|row| row.map(|x| U::of(x.as_f64()))).collect(),
        }
    }

    /// A node's mean, from the middle.
    #[inline(always)]
    pub fn centre(&self, node: usize) -> &[f64] {
        &self.centres[node * self.dim..(node + 1) * self.dim]
    }

    /// A node's moments, if it has them.
    #[inline(always)]
    pub fn moments(&self, node: &Node) -> Option<&[f64]> {
        if node.order == 1 { None } else { Some(&self.moments[node.moments..][..self.monomials.len(node.order)]) }
    }

    /// The rows of a leaf.
    #[inline(always)]
    pub fn rows(&self, leaf: &Node) -> &[[T; LANES]] {
        &self.rows[leaf.first / LANES * self.dim..][..self.dim]
    }

    /// A point by its number in the tree's order.
    pub fn point(&self, number: usize) -> Vec<f64> {
        let mut node = 0;
        while let Some((one, other)) = self.nodes[node].children() {
            node = if self.nodes[one].holds(number) { one } else { other };
        }
        let (leaf, centre) = (&self.nodes[node], self.centre(node));
        let lane = number - leaf.first;
        self.rows(leaf).iter().enumerate().map(|(j, row)| self.middle[j] + (centre[j] + row[lane].as_f64())).collect()
    }
}

/// Two halves of whole leaves, by the projection on the direction in which the points are long. Each keeps the order.
fn halve(points: &[usize], d: usize, farthest: usize, away: &impl Fn(usize, usize) -> f64) -> [Vec<usize>; 2] {
    let along: Vec<f64> = (0..d).map(|j| away(farthest, j)).collect();
    let project = |along: &[f64], point: usize| along.iter().enumerate().map(|(j, a)| a * away(point, j)).sum::<f64>();
    let unit = |mut along: Vec<f64>| {
        let largest = along.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        if largest > 0.0 {
            along.iter_mut().for_each(|a| *a /= largest);
        }
        along
    };
    let along = unit(along);
    let mut longer = vec![0.0; d];
    for &point in points {
        let p = project(&along, point);
        for (j, sum) in longer.iter_mut().enumerate() {
            *sum += p * away(point, j);
        }
    }
    let longer = unit(longer);
    let mut keys: Vec<(f64, usize)> = points.iter().map(|&point| (project(&longer, point), point)).collect();
    let order = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    let half = points.len().div_ceil(LANES).div_ceil(2) * LANES;
    let mut sorted = keys.clone();
    let pivot = *sorted.select_nth_unstable_by(half, order).1;
    drop(sorted);
    let (mut one, mut other) = (Vec::with_capacity(half), Vec::with_capacity(points.len() - half));
    for key in keys.drain(..) {
        if order(&key, &pivot).is_lt() { one.push(key.1) } else { other.push(key.1) }
    }
    [one, other]
}
