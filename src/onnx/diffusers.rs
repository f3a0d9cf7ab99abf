//! [`DiffusersScheduler`]: what a `scheduler_config.json` of diffusers says about a network.

use super::onnx_error::OnnxError;
use super::scheduler_classes::{
    AFTER_K_DIFFUSION, CLASSES, CLIPPING, COUNT_THE_END, EVENLY_SPACED, INTERPOLATE_LEVELS, OF_ONE_SPACING,
    SPACE_LEVELS,
};
use super::time_input::TimeInput;
use crate::error::ParameterError;
use crate::grid::TimeGrid;
use crate::math::portable::exp;
use crate::process::{DiscreteVariancePreserving, InferenceTimesteps, TimestepSpacing};
use crate::score::Parametrisation;
use serde_json::{Map, Value};
use std::path::Path;

/// The process and the parametrisation of a network that was trained with diffusers, from its `scheduler_config.json`.
///
/// What the network means is read: the table of betas (`num_train_timesteps`, `beta_schedule`, `beta_start`, `beta_end`,
/// `trained_betas`, `rescale_betas_zero_snr`) and what it predicts (`prediction_type`). Of what the scheduler does when it
/// samples, two things are kept as suggestions: its inference timesteps (`timestep_spacing`, `steps_offset`,
/// `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas`, `use_lu_lambdas`, `interpolation_type`,
/// `set_alpha_to_one` or `final_sigmas_type`, as the class has it), as [`timesteps`](Self::timesteps) and
/// [`grid`](Self::grid), and the range that it clips denoised states to (`clip_sample`, `clip_sample_range`), as
/// [`clip_range`](Self::clip_range). The rest is not looked at: solvers, variances and dynamic thresholding are choices of a
/// run, not of the network.
///
/// ```text
/// beta_schedule    linear, scaled_linear, squaredcos_cap_v2, sigmoid, or a list as trained_betas
/// prediction_type  epsilon -> Noise,  sample -> Denoiser,  v_prediction -> Velocity
/// _class_name      a scheduler of such a table (DDPM, DDIM, PNDM, Euler, Heun, DPM-Solver, UniPC, ...), or none
/// ```
/// As in diffusers, a spacing, `use_..._sigmas` and `interpolation_type` are read for the classes that know them, and at most
/// one of `use_..._sigmas` may be true. Refused are sigmas between ends of their own (`sigma_min`, `sigma_max`), and
/// `interpolation_type = "log_linear"` without such sigmas, where a scheduler tells the network other timesteps than its noise
/// has.
///
/// Schedulers of flow matching, of EDM's sigmas and of consistency models are refused: their networks mean something else.
/// [`OnnxScore::with_conversion`](super::OnnxScore::with_conversion) takes such networks; `docs/foreign-models.md` has their
/// formulas.
///
/// # Errors
/// [`OnnxError::Scheduler`] with the field, its value, and what is supported; [`OnnxError::NotJson`]; [`OnnxError::Unreadable`].
/// # Example
/// ```
/// use score_diffusion::onnx::DiffusersScheduler;
/// use score_diffusion::prelude::*;
/// let scheduler = DiffusersScheduler::open("tests/reference/onnx/scheduler/ddpm_linear.json")?;
/// assert_eq!(scheduler.process(), &DiscreteVariancePreserving::linear(1e-4, 0.02, 1000)?);
/// assert_eq!(scheduler.parametrisation(), Parametrisation::Noise);
/// assert_eq!(scheduler.timesteps(4)?, [750, 500, 250, 0]);
/// assert_eq!(scheduler.grid(4)?.nodes(), [751.0, 501.0, 251.0, 1.0, 0.0]);
/// assert_eq!(scheduler.clip_range(), Some(1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DiffusersScheduler {
    process: DiscreteVariancePreserving,
    parametrisation: Parametrisation,
    inference: InferenceTimesteps,
    clip_range: Option<f64>,
}

impl DiffusersScheduler {
    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    /// [`OnnxError`] if it cannot be read or says something that is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OnnxError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| OnnxError::Unreadable { path: path.to_owned(), source })?;
        Self::from_json(&text)
    }

    /// Reads the text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// [`OnnxError`] if it is no JSON object or says something that is not supported.
    pub fn from_json(text: &str) -> Result<Self, OnnxError> {
        let fields: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| OnnxError::NotJson { reason: error.to_string() })?;
        let config = Config(&fields);
        config.check_kind()?;
        // what is not said has the meaning that the scheduler's own class gives it
        let class = config.word("_class_name")?.unwrap_or("DDPMScheduler");
        let has_spacings = !OF_ONE_SPACING.contains(&class);
        let told = if has_spacings { config.word("timestep_spacing")? } else { None };
        let spacing = match told {
            None if EVENLY_SPACED.contains(&class) => TimestepSpacing::Linspace,
            None | Some("leading") => TimestepSpacing::Leading,
            Some("trailing") => TimestepSpacing::Trailing,
            Some("linspace") => TimestepSpacing::Linspace,
            Some(_) => return Err(config.refuse("timestep_spacing", "leading, trailing or linspace")),
        };
        let parametrisation = match config.word("prediction_type")? {
            None | Some("epsilon") => Parametrisation::Noise,
            Some("sample") => Parametrisation::Denoiser,
            Some("v_prediction") => Parametrisation::Velocity,
            Some(_) => return Err(config.refuse("prediction_type", "epsilon, sample or v_prediction")),
        };
        let clips = config.truth("clip_sample", CLIPPING.contains(&class))? && !config.truth("thresholding", false)?;
        let levels = config.spacing_of_levels()?;
        let mut inference = InferenceTimesteps::new(levels.unwrap_or(spacing));
        if has_spacings {
            inference = inference.with_offset(config.count("steps_offset")?.unwrap_or(0));
        }
        if COUNT_THE_END.contains(&class) {
            inference = inference.counting_the_end();
        }
        // levels that are interpolated in their logarithm span all timesteps
        let log_linear = config.interpolates_logarithms(levels.is_some())?;
        if AFTER_K_DIFFUSION.contains(&class) {
            inference = inference.interpolating();
            if levels.is_some() && !log_linear {
                inference = inference.with_ends_of(spacing);
            }
        }
        if config.ends_at_first(class)? {
            inference = inference.ending_at_the_first_timestep();
        }
        Ok(Self {
            process: config.process()?,
            parametrisation,
            inference,
            clip_range: if clips { Some(config.number("clip_sample_range")?.unwrap_or(1.0)) } else { None },
        })
    }

    /// The process: a table of training timesteps, timestep `k` at time `k + 1`.
    pub fn process(&self) -> &DiscreteVariancePreserving {
        &self.process
    }

    /// What the network predicts.
    pub fn parametrisation(&self) -> Parametrisation {
        self.parametrisation
    }

    /// What the network takes for time: the timestep.
    pub fn time_input(&self) -> TimeInput {
        TimeInput::Timestep(self.process.clone())
    }

    /// The range that the scheduler clips denoised states to, coordinate by coordinate, if it does: `[-r, r]`.
    /// [`ProjectedScore::boxed`](crate::score::ProjectedScore::boxed) does the same with a score.
    pub fn clip_range(&self) -> Option<f64> {
        self.clip_range
    }

    /// The timesteps at which the scheduler would call the network in a run of `n_steps`, the noisiest first: as DDPM, DDIM,
    /// Euler, Euler ancestral, DPM-Solver (multistep and singlestep), DEIS, UniPC and SA-Solver space them. Others visit other
    /// timesteps, some between whole numbers (KDPM2) or several times (Heun, PNDM); for them this is a grid with the same
    /// spacing.
    ///
    /// # Errors
    /// [`ParameterError`] unless `1 <= n_steps <= N`.
    pub fn timesteps(&self, n_steps: usize) -> Result<Vec<usize>, ParameterError> {
        self.process.inference_timesteps(n_steps, self.inference)
    }

    /// The grid of a run of `n_steps`: from each of its [`timesteps`](Self::timesteps) to the next, and from the last to the data
    /// (`t = 0`), or to timestep 0 (`t = 1`) if the scheduler ends there: by `set_alpha_to_one = false`, by
    /// `final_sigmas_type = "sigma_min"`, or always (DEIS, SA-Solver).
    ///
    /// Schedulers of DDIM's kind go from timestep `k` to `k - N / n_steps` instead, which is another timestep than the next one
    /// where `n_steps` does not divide `N` and the spacing is not leading.
    ///
    /// # Errors
    /// [`ParameterError`] unless `1 <= n_steps <= N`, or if an offset reaches beyond the table.
    pub fn grid(&self, n_steps: usize) -> Result<TimeGrid, ParameterError> {
        self.process.inference_grid(n_steps, self.inference)
    }

    /// How the scheduler chooses its inference timesteps.
    pub fn inference(&self) -> InferenceTimesteps {
        self.inference
    }
}

/// The fields of a configuration. What is absent or `null` is `None`.
struct Config<'a>(&'a Map<String, Value>);

impl<'a> Config<'a> {
    fn field(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn refuse(&self, field: &'static str, supported: &'static str) -> OnnxError {
        let given = self.field(field).map_or("absent".into(), ToString::to_string);
        OnnxError::Scheduler { field, given, supported }
    }

    fn word(&self, field: &'static str) -> Result<Option<&'a str>, OnnxError> {
        self.read(field, Value::as_str, "a word")
    }

    fn truth(&self, field: &'static str, default: bool) -> Result<bool, OnnxError> {
        Ok(self.read(field, Value::as_bool, "true or false")?.unwrap_or(default))
    }

    fn number(&self, field: &'static str) -> Result<Option<f64>, OnnxError> {
        self.read(field, Value::as_f64, "a number")
    }

    fn count(&self, field: &'static str) -> Result<Option<usize>, OnnxError> {
        let count = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= LONGEST);
        self.read(field, count, "a count below 2^24")
    }

    fn read<T>(
        &self,
        field: &'static str,
        of: impl Fn(&'a Value) -> Option<T>,
        supported: &'static str,
    ) -> Result<Option<T>, OnnxError> {
        self.field(field).map(|value| of(value).ok_or_else(|| self.refuse(field, supported))).transpose()
    }

    /// Refuses schedulers of networks that are no noise, denoiser or velocity at the timesteps of a table.
    fn check_kind(&self) -> Result<(), OnnxError> {
        if self.word("_class_name")?.is_some_and(|name| !CLASSES.contains(&name)) {
            let supported = "a scheduler of a table of betas, such as DDPMScheduler or DDIMScheduler";
            return Err(self.refuse("_class_name", supported));
        }
        if self.word("timestep_type")? == Some("continuous") {
            let supported = "discrete: a network that takes continuous noise levels has a TimeInput of its own";
            return Err(self.refuse("timestep_type", supported));
        }
        if self.truth("use_flow_sigmas", false)? {
            return Err(self.refuse("use_flow_sigmas", "false: flow matching is another path"));
        }
        Ok(())
    }

    /// Whether the class is one of these. Without a class it may be any.
    fn is_one_of(&self, classes: &[&str]) -> Result<bool, OnnxError> {
        Ok(self.word("_class_name")?.is_none_or(|class| classes.contains(&class)))
    }

    /// The spacing of noise levels that the scheduler is told to use, if its class knows of any.
    fn spacing_of_levels(&self) -> Result<Option<TimestepSpacing>, OnnxError> {
        let spaces = self.is_one_of(&SPACE_LEVELS)?;
        let mut told = None;
        for (field, spacing, known) in [
            ("use_karras_sigmas", TimestepSpacing::Karras, spaces),
            ("use_exponential_sigmas", TimestepSpacing::LogSnr, spaces),
            ("use_beta_sigmas", TimestepSpacing::Beta, spaces),
            ("use_lu_lambdas", TimestepSpacing::LogSnr, self.is_one_of(&SPACE_LEVELS[..1])?),
        ] {
            if self.truth(field, false)? && known {
                if told.is_some() {
                    return Err(self.refuse(field, "false, as another spacing of noise levels is true"));
                }
                told = Some(spacing);
            }
        }
        if told.is_some() {
            for field in ["sigma_min", "sigma_max"] {
                if self.field(field).is_some() {
                    return Err(self.refuse(field, "none: noise levels span the timesteps"));
                }
            }
        }
        Ok(told)
    }

    /// Whether noise levels are interpolated in their logarithm, if the class knows of that.
    fn interpolates_logarithms(&self, spaces_levels: bool) -> Result<bool, OnnxError> {
        if !self.is_one_of(&INTERPOLATE_LEVELS)? {
            return Ok(false);
        }
        let supported = "linear: with log_linear the network is told other timesteps than its noise has, and \
                         TimeGrid::uniform_in_log_snr has these noise levels";
        match self.word("interpolation_type")? {
            None | Some("linear") => Ok(false),
            Some("log_linear") if spaces_levels => Ok(true),
            _ => Err(self.refuse("interpolation_type", supported)),
        }
    }

    /// Whether the last step ends at timestep 0.
    fn ends_at_first(&self, class: &str) -> Result<bool, OnnxError> {
        let by_word = || match self.word("final_sigmas_type")? {
            None | Some("zero") => Ok(false),
            Some("sigma_min") => Ok(true),
            Some(_) => Err(self.refuse("final_sigmas_type", "zero or sigma_min")),
        };
        match class {
            "DEISMultistepScheduler" | "SASolverScheduler" => Ok(true),
            "EulerDiscreteScheduler"
            | "DPMSolverMultistepScheduler"
            | "DPMSolverSinglestepScheduler"
            | "UniPCMultistepScheduler" => by_word(),
            _ if AFTER_K_DIFFUSION.contains(&class) => Ok(false),
            _ => Ok(!self.truth("set_alpha_to_one", class != "PNDMScheduler")?),
        }
    }

    fn process(&self) -> Result<DiscreteVariancePreserving, OnnxError> {
        let n = self.count("num_train_timesteps")?.ok_or_else(|| self.refuse("num_train_timesteps", "a count"))?;
        let end = |field| self.number(field)?.ok_or_else(|| self.refuse(field, "a number"));
        let ends = || Ok::<_, OnnxError>((end("beta_start")?, end("beta_end")?));
        let table = if let Some(list) = self.field("trained_betas") {
            let betas: Option<Vec<f64>> =
                list.as_array().map(|list| list.iter().map(Value::as_f64).collect()).unwrap_or_default();
            let betas = betas.ok_or_else(|| self.refuse("trained_betas", "a list of numbers"))?;
            ParameterError::same("trained_betas", "elements, num_train_timesteps", n, betas.len())?;
            DiscreteVariancePreserving::from_betas(betas)?
        } else {
            match self.word("beta_schedule")? {
                Some("linear") => {
                    let (start, end) = ends()?;
                    DiscreteVariancePreserving::linear(start, end, n)?
                }
                Some("scaled_linear") => {
                    let (start, end) = ends()?;
                    DiscreteVariancePreserving::scaled_linear(start, end, n)?
                }
                Some("squaredcos_cap_v2") => DiscreteVariancePreserving::cosine(n)?,
                Some("sigmoid") => {
                    let (start, end) = ends()?;
                    let gaps = n.saturating_sub(1).max(1) as f64;
                    let share = |k: usize| 1.0 / (1.0 + exp(6.0 - 12.0 * k as f64 / gaps));
                    DiscreteVariancePreserving::from_betas((0..n).map(|k| start + share(k) * (end - start)).collect())?
                }
                _ => {
                    let supported = "linear, scaled_linear, squaredcos_cap_v2 or sigmoid";
                    return Err(self.refuse("beta_schedule", supported));
                }
            }
        };
        Ok(if self.truth("rescale_betas_zero_snr", false)? { table.with_zero_terminal_snr()? } else { table })
    }
}

/// Timesteps that are believed to be meant.
const LONGEST: usize = 1 << 24;
