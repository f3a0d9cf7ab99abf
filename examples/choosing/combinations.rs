//! Predictors and correctors together: the paper's scheme, the classical one, and a corrector at every node.

use crate::correctors::T1;
use crate::line_plot::{DASHED, Series};
use crate::measure::{Measured, Recipe, Start};
use crate::problems::{Problem, grid};
use rayon::prelude::*;
use score_diffusion::prelude::*;
use std::error::Error;

/// How the evaluations are spent. Each has one parameter, of which the best of three values is shown.
#[derive(Clone, Copy)]
enum Scheme {
    /// The predictor alone, from `N(0, I)` at this time.
    Classical { horizon: f64 },
    /// Half of them on `OuSplit` with this step size at `T1`, from `N(0, I)`; half on the predictor.
    AtStart { step_size: f64 },
    /// The predictor from `N(0, I)` at `FAR`, and a step of `AnnealedLangevin` with this ratio at each node it reaches.
    EveryNode { ratio: f64 },
}

/// Where the predictor starts that has a corrector at every node.
const FAR: f64 = 3.5;

fn schemes() -> [[Scheme; 3]; 3] {
    [
        [2.5, 3.5, 5.0].map(|horizon| Scheme::Classical { horizon }),
        [0.1, 0.2, 0.4].map(|step_size| Scheme::AtStart { step_size }),
        [0.1, 0.2, 0.3].map(|ratio| Scheme::EveryNode { ratio }),
    ]
}

/// A predictor: the names of its three lines, whether it draws noise, its colour.
type Line = ([&'static str; 3], Box<dyn Predictor<f64>>, bool, &'static str);

fn predictors() -> Result<[Line; 3], ParameterError> {
    Ok([
        (
            ["DenoiserHeld, classical", "DenoiserHeld, corrector at T1", "DenoiserHeld, corrector at every node"],
            Box::new(ExponentialIntegrator::DenoiserHeld),
            true,
            "#1b6ca8",
        ),
        (
            ["Ddim, classical", "Ddim, corrector at T1", "Ddim, corrector at every node"],
            Box::new(Ddim::new(0.0)?),
            false,
            "#c0392b",
        ),
        (
            ["UniPc, classical", "UniPc, corrector at T1", "UniPc, corrector at every node"],
            Box::new(UniPc::new(2)?),
            false,
            "#16a085",
        ),
    ])
}

/// For each predictor and each scheme the error against evaluations.
pub fn curves(problem: &Problem, budgets: &[usize], chains: usize) -> Result<Vec<Series>, String> {
    let predictors = predictors().map_err(|e| e.to_string())?;
    let lines: Vec<_> = predictors.iter().flat_map(|line| (0..3).map(move |scheme| (line, scheme))).collect();
    let curve = |&((names, predictor, stochastic, colour), scheme): &(&Line, usize)| {
        let name = names[scheme];
        let best = |&budget: &usize| -> Result<(f64, f64), String> {
            let tried =
                schemes()[scheme].map(|scheme| measure(problem, &**predictor, *stochastic, scheme, budget, chains));
            let mut best = (0.0, f64::INFINITY);
            for measured in tried {
                let Measured { evaluations, error } = measured.map_err(|e| format!("{name}: {e}"))?;
                if error < best.1 {
                    best = (evaluations, error);
                }
            }
            Ok(best)
        };
        let points = budgets.iter().map(best).collect::<Result<_, _>>()?;
        Ok(Series { name, points, dash: [DASHED, "", "2 3"][scheme], colour })
    };
    lines.par_iter().map(curve).collect()
}

fn measure(
    problem: &Problem,
    predictor: &dyn Predictor<f64>,
    stochastic: bool,
    scheme: Scheme,
    budget: usize,
    chains: usize,
) -> Result<Measured, Box<dyn Error>> {
    let half = budget / 2;
    let (grid, corrector, schedule): (_, Box<dyn Corrector<f64>>, _) = match scheme {
        Scheme::Classical { horizon } => (grid(horizon, budget)?, Box::new(NoCorrector), Schedule::AtStart(0)),
        Scheme::AtStart { step_size } => {
            (grid(T1, budget - half)?, Box::new(OuSplit::new(step_size)?), Schedule::AtStart(half))
        }
        Scheme::EveryNode { ratio } => {
            (grid(FAR, half)?, Box::new(AnnealedLangevin::new(ratio)?), Schedule::AfterEachStep(1))
        }
    };
    let start = Start::Standard;
    Recipe { grid, start, predictor, stochastic, corrector: &*corrector, schedule }.measure(problem, chains)
}
