//! k-means with the k-means++ start: where expectation-maximisation begins.

use super::points::Points;
use super::turned::{BLOCK, Turned, squares};
use crate::math::portable::ln;
use crate::noise::{NoiseField, Phase, Stream};

/// Lloyd's iterations, at most. They only have to give expectation-maximisation a start.
const ITERATIONS: usize = 20;

/// Node of the training stream: frozen.
const STREAM: Stream = Stream { phase: Phase::Training, node: u32::MAX };

/// Centres and the points' nearest ones.
pub(super) struct KMeans {
    /// `d x K`; fewer than were asked for if the data has fewer distinct points.
    pub centres: Vec<f64>,
    pub labels: Vec<usize>,
}

/// `k` centres: k-means++ (Arthur, Vassilvitskii 2007), then Lloyd's iterations until no label changes. A pure function
/// of the seed and the start's number.
pub(super) fn k_means(points: &Points, turned: &Turned, k: usize, noise: NoiseField, start: u64) -> KMeans {
    let d = points.dim();
    let mut centres = plus_plus(points, turned, k, noise, start);
    let mut labels = nearest(turned, &centres, d);
    for _ in 0..ITERATIONS {
        move_centres(points, &labels, &mut centres);
        let now = nearest(turned, &centres, d);
        if now == labels {
            break;
        }
        labels = now;
    }
    KMeans { centres, labels }
}

/// Each centre is the best of a few points, drawn in proportion to their squared distances from the centres before: the one that
/// leaves the least sum of squared distances. One draw alone misses one of many clusters too often.
fn plus_plus(points: &Points, turned: &Turned, k: usize, noise: NoiseField, start: u64) -> Vec<f64> {
    let uniform = |draw: usize| noise.uniform_at(STREAM, start, draw as u64);
    let candidates = 2 + ln(k as f64) as usize;
    let first = ((uniform(0) * points.n() as f64) as usize).min(points.n() - 1);
    let mut centres = points.point(first).to_vec();
    let mut distances = vec![f64::INFINITY; points.n()];
    distances = with_centre(turned, &distances, &centres);
    for draw in 1..k {
        let total: f64 = distances.iter().sum();
        // as many centres as distinct points
        let Some(last) = distances.iter().rposition(|&v| v > 0.0) else { break };
        let mut best: Option<(f64, usize, Vec<f64>)> = None;
        for candidate in 0..candidates {
            let chosen = drawn(&distances[..last], uniform(draw * candidates + candidate) * total).unwrap_or(last);
            let closer = with_centre(turned, &distances, points.point(chosen));
            let left: f64 = closer.iter().sum();
            if best.as_ref().is_none_or(|best| left < best.0) {
                best = Some((left, chosen, closer));
            }
        }
        let Some((_, chosen, closer)) = best else { break };
        centres.extend_from_slice(points.point(chosen));
        distances = closer;
    }
    centres
}

/// Squared distances from the nearest centre, with one centre more.
fn with_centre(turned: &Turned, distances: &[f64], centre: &[f64]) -> Vec<f64> {
    let blocks = turned.each_block(|p, block, m| {
        let mut out = vec![0.0; m];
        squares(block, centre, None, &mut out);
        out.iter_mut().zip(&distances[p * BLOCK..]).for_each(|(new, old)| *new = new.min(*old));
        out
    });
    blocks.concat()
}

/// Where a running sum of the weights passes `target`; `None` if it does not.
fn drawn(weights: &[f64], target: f64) -> Option<usize> {
    let mut left = target;
    weights.iter().position(|w| {
        left -= w;
        left < 0.0
    })
}

/// The number of each point's nearest centre, the first of equals.
fn nearest(turned: &Turned, centres: &[f64], d: usize) -> Vec<usize> {
    let blocks = turned.each_block(|_, block, m| {
        let (mut labels, mut least, mut now) = (vec![0; m], [f64::INFINITY; BLOCK], [0.0; BLOCK]);
        for (k, centre) in centres.chunks_exact(d).enumerate() {
            squares(block, centre, None, &mut now[..m]);
            for ((label, least), now) in labels.iter_mut().zip(&mut least).zip(now) {
                if now < *least {
                    (*label, *least) = (k, now);
                }
            }
        }
        labels
    });
    blocks.concat()
}

/// Every centre becomes the mean of its points; one without points stays.
fn move_centres(points: &Points, labels: &[usize], centres: &mut [f64]) {
    let d = points.dim();
    let (mut sums, mut counts) = (vec![0.0; centres.len()], vec![0_usize; centres.len() / d]);
    for (x, &k) in points.as_slice().chunks_exact(d).zip(labels) {
        counts[k] += 1;
        sums[k * d..(k + 1) * d].iter_mut().zip(x).for_each(|(s, x)| *s += x);
    }
    for ((centre, sum), &count) in centres.chunks_exact_mut(d).zip(sums.chunks_exact(d)).zip(&counts) {
        if count > 0 {
            centre.iter_mut().zip(sum).for_each(|(c, s)| *c = s / count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchView;

    fn clusters(data: &[f64], d: usize, k: usize, seed: u64) -> KMeans {
        let points = Points::new(BatchView::new(data, d).unwrap()).unwrap();
        k_means(&points, &Turned::new(&points), k, NoiseField::new(seed), 0)
    }

    #[test]
    fn far_clusters_are_found() {
        // three clusters of 100, 1e3 apart and 1 wide: a start that misses one has odds 1e-6
        let mut data = Vec::new();
        for j in 0..300_u32 {
            let noise = f64::from(j * 7919 % 100) / 100.0;
            data.extend([f64::from(j % 3) * 1e3 + noise, 1.0 - noise]);
        }
        let fit = clusters(&data, 2, 3, 1);
        let mut firsts: Vec<f64> = fit.centres.iter().step_by(2).copied().collect();
        firsts.sort_by(f64::total_cmp);
        for (c, expected) in firsts.iter().zip([0.0, 1e3, 2e3]) {
            assert!((c - expected - 0.5).abs() < 0.51, "{firsts:?}");
        }
        assert!((0..300).all(|j| fit.labels[j] == fit.labels[j % 3]));
    }

    #[test]
    fn no_more_centres_than_distinct_points() {
        let data: Vec<f64> = (0..500).map(|j| f64::from(j % 2)).collect();
        let fit = clusters(&data, 1, 5, 9);
        assert_eq!(fit.centres.len(), 2);
    }
}
