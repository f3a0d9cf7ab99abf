//! Grids at the quantiles of a beta distribution, and noise levels between timesteps, against diffusers.

use score_diffusion::prelude::*;
use score_diffusion::process::{InferenceTimesteps, TimestepSpacing};

/// `sigma/alpha`.
fn level(process: &impl ForwardProcess, t: f64) -> f64 {
    let at = process.marginal(t);
    at.std_dev() / at.scale
}

/// The quantiles of scipy 1.17 (`scipy.stats.beta.ppf`), which says 1e-15; the bisection ends at 1e-18, and `beta_cdf` rounds to
/// about 1e-15 of a density that is 1 or more in size here, except in the last row's upper tail.
#[test]
fn nodes_are_quantiles() {
    let rows = [
        (0.6, 0.6, [0.039_584_405_588_780_85, 0.234_017_003_875_235_72, 0.5, 0.960_415_594_411_219_2]),
        (
            0.6,
            2.5,
            [0.007_783_016_383_491_412_5, 0.050_570_898_572_571_05, 0.127_556_797_189_714_7, 0.489_311_902_337_954_5],
        ),
        (
            3.0,
            0.4,
            [0.660_378_663_342_259_8, 0.863_943_175_019_138_9, 0.947_948_861_491_345_9, 0.999_134_506_595_040_2],
        ),
    ];
    for (a, b, quantiles) in rows {
        let time = TimeGrid::beta_in_time(3.0, 1.0, 10, a, b).unwrap();
        assert_eq!((time.node(0), time.node(10)), (3.0, 1.0));
        let noise = TimeGrid::beta(&OrnsteinUhlenbeck, 3.0, 0.1, 10, a, b).unwrap();
        assert_eq!((noise.node(0), noise.node(10)), (3.0, 0.1));
        let [most, least] = [3.0, 0.1].map(|t| level(&OrnsteinUhlenbeck, t));
        // below 0.1, 0.3, 0.5 and 0.9 of the variable
        for (k, quantile) in [9, 7, 5, 1].into_iter().zip(quantiles) {
            assert!((time.node(k) - (1.0 + 2.0 * quantile)).abs() < 1e-13, "{a} {b} {k} {}", time.node(k));
            let expected = least + quantile * (most - least);
            let given = level(&OrnsteinUhlenbeck, noise.node(k));
            assert!((given / expected - 1.0).abs() < 1e-12, "{a} {b} {k} {given} {expected}");
        }
    }
    // with a = b = 1 the levels are Karras's with rho = 1
    let even = TimeGrid::beta(&OrnsteinUhlenbeck, 2.0, 0.0, 7, 1.0, 1.0).unwrap();
    let karras = TimeGrid::karras(&OrnsteinUhlenbeck, 2.0, 0.0, 7, 1.0).unwrap();
    for (one, other) in even.nodes().iter().zip(karras.nodes()) {
        assert!((one - other).abs() < 1e-13);
    }
    // the twin: 0.6 is another grid
    let grid = TimeGrid::beta(&OrnsteinUhlenbeck, 2.0, 0.0, 7, 0.6, 0.6).unwrap();
    assert!((grid.node(1) - karras.node(1)).abs() > 1e-3);
    // the same noise levels under every process
    let ve = VarianceExploding::linear();
    let [most, least] = [2.0, 0.5].map(|t| level(&OrnsteinUhlenbeck, t));
    let ou = TimeGrid::beta(&OrnsteinUhlenbeck, 2.0, 0.5, 5, 0.6, 0.6).unwrap();
    let other = TimeGrid::beta(&ve, most, least, 5, 0.6, 0.6).unwrap();
    for (t, sigma) in ou.nodes().iter().zip(other.nodes()) {
        assert!((level(&OrnsteinUhlenbeck, *t) / sigma - 1.0).abs() < 1e-12);
    }
    assert_eq!(TimeGrid::beta(&OrnsteinUhlenbeck, 2.0, 0.0, 1, 0.6, 0.6).unwrap().nodes(), [2.0, 0.0]);
}

#[test]
fn bad_numbers_are_refused() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 2e6] {
        for (a, b) in [(bad, 0.6), (0.6, bad)] {
            assert!(TimeGrid::beta(&OrnsteinUhlenbeck, 2.0, 0.0, 4, a, b).is_err());
            assert!(TimeGrid::beta_in_time(2.0, 0.0, 4, a, b).is_err());
        }
    }
    assert!(TimeGrid::beta_in_time(2.0, 3.0, 4, 0.6, 0.6).is_err());
    assert!(TimeGrid::beta_in_time(2.0, 0.0, 0, 0.6, 0.6).is_err());
    assert!(TimeGrid::beta(&OrnsteinUhlenbeck, f64::NAN, 0.0, 4, 0.6, 0.6).is_err());
    // quantiles that f64 cannot tell from the end
    assert!(TimeGrid::beta_in_time(2.0, 1.0, 50, 1e-3, 1e-3).is_err());
}

/// `EulerDiscreteScheduler` and `DPMSolverMultistepScheduler` of diffusers 0.42.1 in 8 steps: 1000 training timesteps, beta_schedule
/// scaled_linear, 0.00085 to 0.012. Their table is in f32: products of 1000 betas and 1 - alpha_bar at timestep 0 are good to 6e-5
/// and 3.5e-5 in sigma.
#[test]
fn noise_levels_are_those_of_diffusers() {
    let process = DiscreteVariancePreserving::scaled_linear(0.000_85, 0.012, 1000).unwrap();
    let far = |rule: InferenceTimesteps, sigmas: &[f64]| {
        let grid = process.inference_grid(8, rule).unwrap();
        assert_eq!(grid.nodes().len(), sigmas.len());
        let pairs = grid.nodes().iter().zip(sigmas);
        pairs.map(|(&t, s)| (level(&process, t) - s).abs() / s.max(1e-9)).fold(0.0, f64::max)
    };
    let of = InferenceTimesteps::new;
    // use_beta_sigmas, the same in both
    let beta = [
        14.614_646_911_621_094,
        13.577_006_340_026_855,
        11.451_765_060_424_805,
        8.759_598_731_994_629,
        5.884_215_831_756_592,
    ];
    let beta = [&beta[..], &[3.192_049_741_744_995, 1.066_808_104_515_075_7, 0.029_167_534_783_482_55, 0.0]].concat();
    assert!(far(of(TimestepSpacing::Beta), &beta) < 1e-4, "{}", far(of(TimestepSpacing::Beta), &beta));
    assert!(far(of(TimestepSpacing::Karras), &beta) > 0.1, "the twin");
    let rounded = process.inference_timesteps(8, of(TimestepSpacing::Beta)).unwrap();
    // Euler's: 999, 986.76, 957.62, 909.11, 830.21, 689.02, 373.39, 0; DPM-Solver cuts their fractions off
    assert_eq!(rounded, [999, 987, 958, 909, 830, 689, 373, 0]);
    // Euler, linspace: 999, 856.29, 713.57, ...
    let linspace = [
        14.614_646_911_621_094,
        6.678_018_093_109_131,
        3.522_065_162_658_691_4,
        2.060_643_672_943_115_2,
        1.276_833_772_659_301_8,
    ];
    let linspace =
        [&linspace[..], &[0.791_261_553_764_343_3, 0.439_667_493_104_934_7, 0.029_167_534_783_482_55, 0.0]].concat();
    let rule = of(TimestepSpacing::Linspace);
    println!("linspace {:.1e}, rounded {:.1e}", far(rule.interpolating(), &linspace), far(rule, &linspace));
    assert!(far(rule.interpolating(), &linspace) < 1e-4);
    // the twin: rounded timesteps have other noise
    assert!(far(rule, &linspace) > 5e-4);
    // Euler, leading with offset 1: levels between those of timesteps 876 and 1
    let leading = |spacing| of(spacing).with_offset(1).with_ends_of(TimestepSpacing::Leading);
    let karras = [
        7.371_846_675_872_803,
        4.279_825_687_408_447,
        2.373_423_099_517_822_3,
        1.246_688_961_982_727,
        0.613_469_898_700_714_1,
    ];
    let karras =
        [&karras[..], &[0.278_661_847_114_563, 0.114_487_685_263_156_89, 0.041_314_478_963_613_51, 0.0]].concat();
    assert!(far(leading(TimestepSpacing::Karras), &karras) < 1e-4);
    let beta = [
        7.371_846_675_872_803,
        6.850_337_982_177_734,
        5.782_210_350_036_621,
        4.429_151_535_034_18,
        2.984_009_742_736_816_4,
    ];
    let beta = [&beta[..], &[1.630_950_927_734_375, 0.562_823_414_802_551_3, 0.041_314_478_963_613_51, 0.0]].concat();
    assert!(far(leading(TimestepSpacing::Beta), &beta) < 1e-4);
    assert!(far(of(TimestepSpacing::Beta).with_offset(1), &beta) > 0.1, "the twin");
}

/// How far the timestep of an interpolated level is from the scheduler's.
#[test]
fn timesteps_of_interpolated_levels_are_near() {
    let mut most = 0.0_f64;
    for process in [
        DiscreteVariancePreserving::scaled_linear(0.000_85, 0.012, 1000).unwrap(),
        DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap(),
    ] {
        for n in [1, 2, 7, 28, 50, 333, 667, 999] {
            let rule =
                InferenceTimesteps::new(TimestepSpacing::Linspace).interpolating().ending_at_the_first_timestep();
            let grid = process.inference_grid(n, rule).unwrap();
            // nodes 0 and 1 of n = 1 are timestep 0 and the same
            assert_eq!(grid.nodes().len(), n);
            for (k, &t) in grid.nodes().iter().enumerate() {
                let scheduler = 999.0 * (n - 1 - k) as f64 / (n - 1).max(1) as f64;
                let off = (process.timestep_at(t) - scheduler).abs();
                assert!(off == 0.0 || scheduler.fract() != 0.0, "{n} {k} {off}");
                most = most.max(off);
            }
        }
        let all = InferenceTimesteps::new(TimestepSpacing::Linspace);
        assert_eq!(
            process.inference_grid(1000, all.interpolating()).unwrap(),
            process.inference_grid(1000, all).unwrap()
        );
    }
    println!("timesteps off by at most {most:.3}");
    assert!(most < 0.05 && most > 0.01, "{most}");
    let no_signal = DiscreteVariancePreserving::linear(1e-4, 0.02, 1000).unwrap().with_zero_terminal_snr().unwrap();
    for rule in [
        InferenceTimesteps::new(TimestepSpacing::Linspace).interpolating(),
        InferenceTimesteps::new(TimestepSpacing::Beta),
    ] {
        assert!(no_signal.inference_grid(8, rule).is_err());
    }
    // few timesteps, and one
    let few = DiscreteVariancePreserving::linear(1e-4, 0.02, 2).unwrap();
    for spacing in [TimestepSpacing::Linspace, TimestepSpacing::Beta] {
        let rule = InferenceTimesteps::new(spacing).interpolating();
        assert_eq!(few.inference_grid(2, rule).unwrap().nodes(), [2.0, 1.0, 0.0]);
        let one = DiscreteVariancePreserving::linear(1e-4, 0.02, 1).unwrap();
        assert_eq!(one.inference_grid(1, rule).unwrap().nodes(), [1.0, 0.0]);
    }
}

/// A run has a grid of as many steps as it was asked for, or none.
#[test]
fn no_run_is_shortened_in_silence() {
    use TimestepSpacing::{Beta, Karras, Leading, LogSnr};
    let process = DiscreteVariancePreserving::linear(1e-4, 0.02, 4).unwrap();
    for spacing in [Leading, Karras, LogSnr, Beta] {
        let rule = InferenceTimesteps::new(spacing).with_ends_of(Leading);
        for n in 1..=4 {
            assert_eq!(process.inference_grid(n, rule).unwrap().n_steps(), n, "{spacing:?}");
            let counting = process.inference_grid(n, rule.counting_the_end());
            if n < 4 {
                assert_eq!(counting.unwrap().n_steps(), n, "{spacing:?}");
            } else {
                // floor(4/5) = 0: all its timesteps would be the first
                let error = counting.unwrap_err();
                assert!(
                    matches!(error, ParameterError::Count { name: "n_steps", given: 4, .. }),
                    "{spacing:?} {error}"
                );
                assert_eq!(process.inference_timesteps(n, rule.counting_the_end()).unwrap_err(), error);
            }
        }
        // the only timestep is the first
        let one = DiscreteVariancePreserving::linear(1e-4, 0.02, 1).unwrap();
        assert_eq!(one.inference_grid(1, rule.counting_the_end()).unwrap().nodes(), [1.0, 0.0], "{spacing:?}");
    }
}
