//! The correctors that are compared: each alone at `T1`, from `N(0, I)`, as the paper begins.

use crate::kernels::{Kernel, Proposal};
use crate::line_plot::{DASHED, Series};
use crate::measure::{Measured, Recipe, Start};
use crate::problems::Problem;
use score_diffusion::prelude::*;
use score_diffusion::sampler::{LangevinStep, Restart, ScoreBarker, SnrLangevin, StepSizes};
use std::error::Error;
use std::sync::Arc;

/// Where the correctors work.
pub const T1: f64 = 1.0;

/// The step sizes of all rules. A restart has none: it comes back in so many steps.
const SIZES: [f64; 4] = [0.05, 0.1, 0.2, 0.4];
const RESTART_STEPS: [usize; 4] = [16, 8, 4, 2];
const LOG_SNR_DROP: f64 = 1.4;
const LEAPFROGS: usize = 4;

/// A corrector with one step size.
struct Variant {
    corrector: Box<dyn Corrector<f64>>,
    /// The transition on the line, of a Metropolis rule that moves once per step.
    proposal: Option<Proposal>,
    /// Evaluations of a step after the first, of those that steps mostly take.
    per_step: usize,
}

impl Variant {
    fn new(corrector: impl Corrector<f64> + 'static) -> Self {
        let per_step = Corrector::<f64>::nfe(&corrector);
        Self { corrector: Box::new(corrector), proposal: None, per_step }
    }

    /// The most steps within a budget of evaluations; those of the first step may be more.
    fn steps_within(&self, budget: usize) -> usize {
        let first = self.corrector.first_nfe().min(self.per_step + 1);
        if budget < first { 0 } else { 1 + (budget - first) / self.per_step }
    }
}

/// A rule, what is said of it, and its line.
struct Rule {
    name: &'static str,
    per_step: &'static str,
    in_place: &'static str,
    needs: &'static str,
    /// One for each of the step sizes.
    variants: fn(&Problem, f64, usize) -> Result<Variant, ParameterError>,
    colour: &'static str,
    dash: &'static str,
}

/// All correctors of the crate but `RePaint`, which has another target: the law given known coordinates.
fn rules() -> Vec<Rule> {
    let rule = |name, [per_step, in_place, needs]: [&'static str; 3], variants, colour, dash| Rule {
        name,
        per_step,
        in_place,
        needs,
        variants,
        colour,
        dash,
    };
    vec![
        rule(
            "OuSplit",
            ["1", "up to O(h); exactly on `N(0, I)`", "a step size"],
            |_, h, _| Ok(Variant::new(OuSplit::new(h)?)),
            "#1b6ca8",
            "",
        ),
        rule(
            "UnadjustedLangevin",
            ["1", "up to O(h)", "a step size"],
            |_, h, _| Ok(Variant::new(UnadjustedLangevin::new(h)?)),
            "#c0392b",
            "",
        ),
        rule(
            "AnnealedLangevin",
            ["1", "up to O(r^2)", "a fraction `r` of the noise level"],
            |_, h, _| Ok(Variant::new(AnnealedLangevin::new((0.5 * h).sqrt())?)),
            "#e08e0b",
            DASHED,
        ),
        rule(
            "SnrLangevin",
            ["1", "no: the step depends on the noise drawn", "a target ratio; for comparison with Song et al."],
            |_, h, _| Ok(Variant::new(SnrLangevin::per_chain((0.5 * h).sqrt())?)),
            "#7f5539",
            DASHED,
        ),
        rule(
            "UnderdampedLangevin",
            ["1", "up to O(h)", "a step size, and how much momentum persists"],
            |_, h, _| Ok(Variant::new(UnderdampedLangevin::new(h, (1.0 - 2.0 * (2.0 * h).sqrt()).max(0.0))?)),
            "#27ae60",
            "",
        ),
        rule(
            "Mala",
            ["1, and a log-density", "exactly", "`LogDensity`"],
            |problem, h, _| {
                let score = problem.score();
                let (mala, model) = (Arc::new(Mala::new(h, score.clone())?), score.clone());
                let (step, rule) = (mala.step().coefficients(&OrnsteinUhlenbeck, T1)?, mala.clone());
                let log_acceptance = Box::new(move |x: BatchView<'_, f64>, y: BatchView<'_, f64>| {
                    rule.log_acceptance(&model, &OrnsteinUhlenbeck, T1, x, y)
                });
                Ok(Variant { proposal: Some(Proposal { step, log_acceptance }), ..Variant::new(mala) })
            },
            "#8e44ad",
            "",
        ),
        rule(
            "PcnLangevin",
            ["1, and a log-density", "exactly", "`LogDensity`"],
            |problem, h, _| {
                let score = problem.score();
                let (pcn, model) = (Arc::new(PcnLangevin::new(h, score.clone())?), score.clone());
                let (step, rule) = (pcn.step().coefficients(&OrnsteinUhlenbeck, T1)?, pcn.clone());
                let log_acceptance = Box::new(move |x: BatchView<'_, f64>, y: BatchView<'_, f64>| {
                    rule.log_acceptance(&model, &OrnsteinUhlenbeck, T1, x, y)
                });
                Ok(Variant { proposal: Some(Proposal { step, log_acceptance }), ..Variant::new(pcn) })
            },
            "#d35490",
            DASHED,
        ),
        rule(
            "Hmc",
            ["one per leapfrog, and a log-density", "exactly", "`LogDensity`"],
            |problem, h, _| Ok(Variant::new(Hmc::new(h, LEAPFROGS, problem.score())?)),
            "#000000",
            "",
        ),
        rule(
            "ScoreMetropolis",
            [
                "2 (Simpson's rule; 1 with the trapezoid)",
                "up to about O(h^2), measured",
                "a score that is a gradient; it measures how far it is from one",
            ],
            |problem, h, _| {
                let score = problem.score();
                let metropolis = ScoreMetropolis::new(LangevinStep::langevin(StepSizes::constant(h)?));
                let (rule, model) = (metropolis.clone(), score.clone());
                let step = metropolis.step().coefficients(&OrnsteinUhlenbeck, T1)?;
                let log_acceptance = Box::new(move |x: BatchView<'_, f64>, y: BatchView<'_, f64>| {
                    rule.log_acceptance(&model, &OrnsteinUhlenbeck, T1, x, y)
                });
                Ok(Variant { proposal: Some(Proposal { step, log_acceptance }), ..Variant::new(metropolis) })
            },
            "#16a085",
            "12 3",
        ),
        rule(
            "ScoreBarker",
            [
                "1 and a few, at random",
                "exactly, but for fallbacks, which the report counts",
                "a score that is a gradient, and a bound on its second derivatives along lines",
            ],
            |problem, h, _| {
                let barker = ScoreBarker::new(
                    LangevinStep::langevin(StepSizes::constant(h)?),
                    problem.third_derivative_bound(T1)?,
                );
                // one, and seldom more where the bound is small
                Ok(Variant { per_step: 1, ..Variant::new(barker) })
            },
            "#c71585",
            "2 3",
        ),
        rule(
            "ScoreHmc",
            ["one per leapfrog", "nearly", "a score that is a gradient"],
            |_, h, _| Ok(Variant::new(ScoreHmc::new(h, LEAPFROGS)?)),
            "#5dade2",
            "12 3",
        ),
        rule(
            "Restart",
            ["those of its predictor's steps", "as its predictor does", "how far to go back"],
            |_, _, steps| Ok(Variant::new(Restart::new(ExponentialIntegrator::DenoiserHeld, LOG_SNR_DROP, steps)?)),
            "#b7950b",
            "2 3",
        ),
    ]
}

impl Rule {
    fn variants(&self, problem: &Problem) -> Result<Vec<Variant>, ParameterError> {
        SIZES.iter().zip(RESTART_STEPS).map(|(&h, steps)| (self.variants)(problem, h, steps)).collect()
    }
}

/// For each corrector the error at `T1` against evaluations: the best of the step sizes.
pub fn curves(problem: &Problem, budgets: &[usize], chains: usize) -> Result<Vec<Series>, Box<dyn Error>> {
    let mut all = Vec::new();
    for rule in rules() {
        let mut points: Vec<Option<Measured>> = vec![None; budgets.len()];
        for variant in rule.variants(problem)? {
            let counts: Vec<usize> = budgets.iter().map(|&budget| variant.steps_within(budget)).collect();
            let possible = counts.iter().filter(|&&n| n > 0).count();
            let counts = &counts[budgets.len() - possible..];
            let measured = errors(problem, &variant, counts, chains).map_err(|e| format!("{}: {e}", rule.name))?;
            for (best, new) in points[budgets.len() - possible..].iter_mut().zip(measured) {
                if best.is_none_or(|best| new.error < best.error) {
                    *best = Some(new);
                }
            }
        }
        let points = points.into_iter().flatten().map(|m| (m.evaluations, m.error)).collect();
        all.push(Series { name: rule.name, points, dash: rule.dash, colour: rule.colour });
    }
    Ok(all)
}

/// After each of the increasing numbers of steps.
fn errors(
    problem: &Problem,
    variant: &Variant,
    counts: &[usize],
    chains: usize,
) -> Result<Vec<Measured>, Box<dyn Error>> {
    let Some(&last) = counts.last() else { return Ok(vec![]) };
    let corrector = &*variant.corrector;
    let evaluations = |n: usize| (corrector.first_nfe() + (n - 1) * corrector.nfe()) as f64;
    if let (Problem::Modes(law), Some(proposal)) = (problem, &variant.proposal) {
        let target = law.marginal(&OrnsteinUhlenbeck, T1);
        let laws = Kernel::new(&problem.score(), T1, proposal)?.laws(|x| (-0.5 * x * x).exp(), counts)?;
        let measured = laws.iter().zip(counts).map(|(law, &n)| {
            let error = law.wasserstein2(&law.at_same_nodes(&target)?);
            Ok(Measured { evaluations: evaluations(n), error })
        });
        return measured.collect();
    }
    let whole = Recipe::of_corrector(corrector, T1, last)?;
    let exact = match problem {
        Problem::Gaussian(_) => whole.has_linear_steps(problem)?,
        Problem::Modes(_) => whole.has_affine_steps(problem)?,
        Problem::Ring(_) => false,
    };
    if !exact {
        let counts: Vec<u64> = counts.iter().map(|&n| n as u64).collect();
        return whole.sampled_along(problem, &counts, chains);
    }
    counts.iter().map(|&n| Recipe::of_corrector(corrector, T1, n)?.measure(problem, chains)).collect()
}

/// The biases at the end of long runs, from exact laws: W2 at `h` and the order seen from `h` to `h/2`.
pub fn table(gaussian: &Problem, modes: &Problem, quick: bool) -> Result<(), Box<dyn Error>> {
    const H: f64 = 0.1;
    println!("\nW2 of the stationary law at T1 = {T1} from the law, h = {H}, and the order seen from h to h/2:");
    println!("exact laws (a restart comes back in 16 steps, then in 32).\n");
    println!(
        "| corrector | evaluations per step | leaves the law in place | on Gaussian data | on two modes | needs |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for rule in rules() {
        let [on_gaussian, on_modes] = [gaussian, modes].map(|problem| -> Result<String, Box<dyn Error>> {
            let mut seen = Vec::new();
            for (h, steps) in [(H, 16), (0.5 * H, 32)] {
                let variant = (rule.variants)(problem, h, steps)?;
                // quick runs end before they have settled
                let count = if quick { 10 } else { (40.0 / h) as usize };
                let Some(bias) = settled(problem, &variant, count)? else { return Ok(String::new()) };
                seen.push(bias);
            }
            Ok(crate::seen(seen[0], seen[1]))
        });
        println!(
            "| `{}` | {} | {} | {} | {} | {} |",
            rule.name, rule.per_step, rule.in_place, on_gaussian?, on_modes?, rule.needs
        );
    }
    Ok(())
}

/// How far from the law a chain has gone after so many steps from it, if that is known exactly.
fn settled(problem: &Problem, variant: &Variant, count: usize) -> Result<Option<f64>, Box<dyn Error>> {
    if let (Problem::Modes(law), Some(proposal)) = (problem, &variant.proposal) {
        let law = law.marginal(&OrnsteinUhlenbeck, T1);
        let density = |x: f64| law.log_density(&[x]).map_or(0.0, f64::exp);
        let laws = Kernel::new(&problem.score(), T1, proposal)?.laws(density, &[count])?;
        return Ok(Some(laws[0].wasserstein2(&laws[0].at_same_nodes(&law)?)));
    }
    let recipe = Recipe { start: Start::Exact, ..Recipe::of_corrector(&*variant.corrector, T1, count)? };
    Ok(recipe.exact(problem)?.map(|measured| measured.error))
}
