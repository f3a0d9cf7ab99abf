//! What the classes of diffusers' schedulers know, and what they do when nothing is said; as of diffusers 0.42.

/// Schedulers whose networks are given the timesteps of a table of betas.
pub(super) const CLASSES: [&str; 20] = [
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDIMInverseScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "RePaintScheduler",
];

/// Schedulers that space all timesteps evenly when nothing is said.
pub(super) const EVENLY_SPACED: [&str; 13] = [
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
];

/// Schedulers that know one spacing: `timestep_spacing` and `steps_offset` are left over from others.
pub(super) const OF_ONE_SPACING: [&str; 2] = ["DPMSolverSinglestepScheduler", "RePaintScheduler"];

/// Schedulers that count one timestep more, the end of the last step, which they do not call the network at.
pub(super) const COUNT_THE_END: [&str; 5] = [
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
];

/// Schedulers after k-diffusion: they visit noise levels between timesteps, and space levels between the ends of the
/// timesteps that they would visit.
pub(super) const AFTER_K_DIFFUSION: [&str; 7] = [
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
];

/// Schedulers that know how to space noise levels, `use_karras_sigmas` and its like; only the first knows `use_lu_lambdas`.
pub(super) const SPACE_LEVELS: [&str; 12] = [
    "DPMSolverMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
];

/// Schedulers that clip denoised states when nothing is said.
pub(super) const CLIPPING: [&str; 6] = [
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDIMInverseScheduler",
    "RePaintScheduler",
];

/// Schedulers that know `interpolation_type`.
pub(super) const INTERPOLATE_LEVELS: [&str; 1] = ["EulerDiscreteScheduler"];
