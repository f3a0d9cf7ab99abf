//! What early stopping does to the samples of a data set's exact score: the same chains, looked at on their way down.

use crate::data::{Data, median, nearest};
use crate::digits_data::PIXELS;
use crate::{DigitSampler, digit_sampler, pictures, progress_bar};
use score_diffusion::prelude::*;
use score_diffusion::sampler::StepKind;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

/// Early-stopping times to compare.
const STOPS: [f64; 5] = [0.5, 0.2, 0.05, 0.01, 0.001];
/// Two different images of the data differ by at least 1/8, one grey level in one pixel.
const SAME: f64 = 1e-3;

/// Follows the chains of a sampler with the exact score down to the last of `STOPS`, and looks at them at each.
pub fn compare(
    data: &Data,
    sampler: DigitSampler,
    (chains, seed, steps): (u64, u64, usize),
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let law = Empirical::new(&data.training.images, PIXELS)?;
    // One run serves for all stops: noise is addressed by the node, so a grid that ends earlier gives the same chains.
    let horizon = sampler.grid().horizon();
    let mut nodes = TimeGrid::geometric(horizon, STOPS[STOPS.len() - 1], steps)?.nodes().to_vec();
    nodes.extend(STOPS);
    nodes.sort_unstable_by(|a, b| b.total_cmp(a));
    nodes.dedup();
    let stops: Vec<usize> = STOPS.iter().filter_map(|stop| nodes.iter().position(|t| t == stop)).collect();
    let sampler = digit_sampler(sampler.score().clone(), TimeGrid::from_nodes(nodes)?)?;

    let bar = progress_bar("early stopping", sampler.n_steps());
    let mut stopped = Vec::new();
    let mut look = |p: &Progress<f32>| {
        bar.set_position(p.steps_done);
        // the last state before the final denoising, not after it
        if stops.contains(&p.node) && p.kind != StepKind::Denoise {
            stopped.push((p.time, p.states.to_batch()));
        }
        ControlFlow::Continue(())
    };
    sampler.sample_observed(0..chains, seed, &mut look)?;
    bar.finish_and_clear();

    println!("\nWhat early stopping does, to the same {chains} chains:");
    println!("early stop   sigma    samples  exact draws  pure noise    copies");
    let columns = chains.min(10) as usize;
    let mut rows = Vec::new();
    let mut copied: Vec<f32> = Vec::new();
    for (t, states) in &stopped {
        let at = OrnsteinUhlenbeck.marginal(*t);
        let states = BatchView::try_from(states)?;
        let distance = median(nearest(law.points(), at.scale, states).into_iter().map(|(distance, _)| distance));
        let exact = law.marginal(&OrnsteinUhlenbeck, *t).sample_seeded(chains as usize, seed)?.cast();
        let exact = median(nearest(law.points(), at.scale, BatchView::try_from(&exact)?).into_iter().map(|(d, _)| d));

        let mut denoised = sampler.score().score(*t, states)?;
        let to_denoiser = Parametrisation::Denoiser.from_score(at);
        for (d, x) in denoised.iter_mut().zip(states.as_slice()) {
            *d = to_denoiser.apply(f64::from(*x), f64::from(*d)) as f32;
        }
        let denoised = BatchView::try_from(&denoised)?;
        let found = nearest(law.points(), 1.0, denoised);
        let copies = found.iter().filter(|(distance, _)| *distance < SAME).count() as f64 / found.len() as f64;
        println!(
            "{t:10} {:7.3} {distance:10.3} {exact:12.3} {:11.3} {:8.0}%",
            at.std_dev(),
            at.std_dev() * (PIXELS as f64).sqrt(),
            100.0 * copies,
        );
        let shown = 0..columns;
        rows.push((data.pixels(states.columns(shown.clone())), data.pixels(denoised.columns(shown.clone()))));
        let image = |k: usize| &law.points()[k * PIXELS..(k + 1) * PIXELS];
        copied = found[shown].iter().flat_map(|(_, k)| image(*k)).map(|&p| p as f32).collect();
    }
    println!(
        "\
samples      median distance to the nearest image of the data, shrunk by alpha as the process does
exact draws  the same for images of the data with the right noise, drawn without a sampler
pure noise   what it is if a sample is one image plus noise: sigma sqrt({PIXELS})
copies       samples that a final denoising step brings within {SAME} of an image of the data
With this exact score a small early-stopping time gives noisy copies of the data: all three distances agree, and denoising
finds the very image. A large one leaves the image open: denoising gives a blend of several, new but blurred."
    );

    // left: the chains as they are; right: after denoising; last row: the images of the data they end at
    let last = data.pixels(BatchView::new(&copied, PIXELS)?);
    let mut places = Vec::new();
    for (left, right) in rows.iter().map(|(l, r)| (Some(l), r)).chain([(None, &last)]) {
        match left {
            Some(left) => places.extend(left.chunks_exact(PIXELS).map(Some)),
            None => places.extend(std::iter::repeat_n(None, columns)),
        }
        places.push(None);
        places.extend(right.chunks_exact(PIXELS).map(Some));
    }
    let sheet = out.join("early_stopping.png");
    pictures::save(&sheet, &places, 2 * columns + 1)?;
    println!("\nwrote {}: a row for each time, the same chains in each; left as sampled, right", sheet.display());
    println!("after denoising; last row: the images of the data that are nearest to the last denoised ones");
    Ok(())
}
