"""Compares this crate's step tables with the solvers of diffusers and k-diffusion, fed the same model outputs and noise.

    pip install diffusers==0.42.1 torch torchvision torchsde torchdiffeq scipy tqdm
    pip install --no-deps k-diffusion==0.1.1.post1
    python tests/reference/steps/compare.py

The tables, tables.json beside this file, are written by the crate's own test `write_step_tables`. A table that is not there is
skipped, and so is a library that is not installed. The exit status is 1 if a pair differs by more than TOLERANCE.

Both libraries compute in the precision of their tensors, except for a few casts to float32. The column "float64" has these
casts replaced by float64, so that it compares formulas; the column "as shipped" leaves them, and shows what they cost.

Coordinates. diffusers' variance-preserving schedulers hold x with alpha^2 + sigma^2 = 1, as the Ornstein-Uhlenbeck process
does, and are given sigma/alpha as their "sigmas". k-diffusion and the Euler and Heun schedulers of diffusers hold
y = x/alpha, so their states are multiplied by alpha.

Deliberate differences, none of which is in the pairs below:
- The last step to sigma = 0 is of first order here, always. diffusers does the same by default; with
  lower_order_final=False its UniPC of order 2 gives infinity there, and that of order 3 stops with an exception.
- No pair uses diffusers' defaults lower_order_final=True without saying so ("_lower"): ours is false, as a last step of
  first order has an error of order h^2 of its own.
- UniPC here corrects a step at its own end, diffusers at the beginning of its next call. It is the same state: what diffusers
  returns is compared with the point of our evaluation, its `last_sample` with our state.
- k-diffusion draws noise for a churn of 0 and throws it away, which shifts its stream; here no noise is drawn that is not used.
- diffusers' clip_sample and thresholding change the model's outputs; they are off.
- DPMSolverSinglestepScheduler counts the inner points of a step among its nodes; it is given ours. In a step of order 3 it takes
  the second of them by its rule of order 2, for which it is told "heun" here: the paper's point. Its "midpoint" gives another.
- The noise of a stochastic single step, xi_m and xi_v, is that of the table: it has the joint law of the SDE with the denoiser
  held, not that of a Brownian tree over sigma.
- k-diffusion's adaptive solver evaluates again where a rejected step began. These evaluations are left out of adaptive.json, which
  holds the noise levels and points at which it asks for a mixture's score, and which a test of the crate walks along:

    python tests/reference/steps/compare.py --write-adaptive
- The third order of DPM-Solver++ weighs its second difference by half of what the parabola through three denoisers asks for, in
  diffusers, k-diffusion and the authors' code. The pairs compare that rule (DpmSolverCurvature::Halved); the default here is the
  parabola, whose steps are of order 3. diffusers' sde-dpmsolver++ of order 3 has besides -1/2 for +1/2 in that weight
  (0.42.1), so that it is of order 1: it is in no pair, k-diffusion's sample_dpmpp_3m_sde is.
- k-diffusion and diffusers integrate the polynomials of their LMS by scipy's quad with epsrel 1e-4, which one
  panel of 21 Gauss-Kronrod nodes meets exactly for polynomials of degree 3.
- diffusers' DEIS gives NaN in a step to sigma = 0; here that step is of first order. There is no pair for it.
- diffusers' PNDM with Runge-Kutta steps takes the middle of a step on the grid of training timesteps. The pair gives it one where the
  middle exists.
- diffusers' SASolver chooses tau by the timestep; the pairs have a constant tau. Its default weights in steps of order 2 are
  SaSolverWeights::Simplified here, not the paper's.
"""

import contextlib
import importlib.util
import inspect
import json
import pathlib
import sys
import types

import torch

TABLES = json.loads((pathlib.Path(__file__).parent / "tables.json").read_text())

# Largest difference of two states that is taken for rounding. States and outputs are of size 1 to 4, a table has up to 9
# steps, and a step adds up to about 10 products with coefficients up to 10: 9 * 10 * 40 * 1.1e-16 = 4e-13.
TOLERANCE = 4e-13


class Table:
    """A table as tensors of one precision."""

    def __init__(self, name, dtype):
        table = TABLES[name]
        assert table["parametrisation"] == "Noise"
        tensor = lambda values: torch.tensor(values, dtype=torch.float64).to(dtype)
        self.dtype, self.rows = dtype, table["rows"]
        self.start = tensor([table["start"]])
        self.alpha = torch.tensor([node["alpha"] for node in table["nodes"]], dtype=torch.float64)
        self.sigma = torch.tensor([node["sigma"] for node in table["nodes"]], dtype=torch.float64)
        self.steps = len(self.rows)
        self.outputs = [tensor([e["output"]]) for row in self.rows for e in row["evaluations"]]
        self.points = [tensor([e["point"]]) for row in self.rows for e in row["evaluations"]]
        self.states = [tensor([row["state"]]) for row in self.rows]
        self.noise = [tensor([row["noise"][0] if row["noise"] else [0.0] * len(table["start"])]) for row in self.rows]
        self.path_noise = [tensor([xi]) for row in self.rows if len(row["noise"]) == 2 for xi in self.path(row)]
        at = [e["at"] for row in self.rows for e in row["evaluations"]] + [table["nodes"][-1]]
        self.all_alpha = torch.tensor([at["alpha"] for at in at], dtype=torch.float64)
        self.all_sigma = torch.tensor([at["sigma"] for at in at], dtype=torch.float64)

    def starts_of_rows(self):
        """The number of each row's first evaluation, and the row."""
        k = 0
        for row in self.rows:
            yield k, row
            k += len(row["evaluations"])

    @staticmethod
    def path(row):
        """The noise that a step sees halfway, and its own: a normal each."""
        weights = [next(c for term, c in row["next"]["terms"] if term == {"Noise": i}) for i in range(2)]
        size = (weights[0] ** 2 + weights[1] ** 2) ** 0.5
        return row["noise"][0], [(weights[0] * a + weights[1] * b) / size for a, b in zip(*row["noise"])]

    def levels(self):
        """sigma/alpha at the nodes."""
        return (self.sigma / self.alpha).to(self.dtype)


class Torch64:
    """torch, with float64 in the place of float32."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextlib.contextmanager
def precision(scheduler, dtype):
    """Runs a scheduler's module in float64, or as it is shipped."""
    module = sys.modules[type(scheduler).__module__]
    before, default = module.torch, torch.get_default_dtype()
    if dtype == torch.float64:
        module.torch = Torch64()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        module.torch = before
        torch.set_default_dtype(default)


def prepared(scheduler, table, levels):
    """A scheduler that walks over the table's nodes."""
    n = len(levels) - 1
    scheduler.set_timesteps(n)
    scheduler.sigmas = levels
    scheduler.timesteps = torch.arange(n - 1, -1, -1).double()
    scheduler.num_inference_steps = n
    scheduler.set_begin_index(0)
    return scheduler


def furthest(pairs):
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def diffusers_multistep(table, scheduler):
    """DPMSolverMultistepScheduler."""
    scheduler = prepared(scheduler, table, table.levels())
    x, theirs = table.start, []
    for t, output, noise in zip(scheduler.timesteps, table.outputs, table.noise):
        x = scheduler.step(output, t, x, variance_noise=noise).prev_sample
        theirs.append(x)
    return furthest(zip(theirs, table.states))


def diffusers_unipc(table, scheduler):
    """UniPCMultistepScheduler: what it returns is our next point, what it then corrects is our state."""
    scheduler = prepared(scheduler, table, table.levels())
    x, points, states = table.start, [], []
    for t, output in zip(scheduler.timesteps, table.outputs):
        points.append(x)
        x = scheduler.step(output, t, x).prev_sample
        states.append(scheduler.last_sample)
    states = states[1:] + [x]
    return max(furthest(zip(points, table.points)), furthest(zip(states, table.states)))


def diffusers_ddim(table, scheduler, eta):
    """DDIMScheduler: timestep k is node N - 1 - k."""
    n = table.steps
    scheduler.set_timesteps(n)
    scheduler.alphas_cumprod = (table.alpha**2).flip(0)[1:].to(table.dtype)
    scheduler.final_alpha_cumprod = (table.alpha**2)[-1].to(table.dtype)
    x, theirs = table.start, []
    for k, (output, noise) in enumerate(zip(table.outputs, table.noise)):
        x = scheduler.step(output, n - 1 - k, x, eta=eta, variance_noise=noise if eta > 0 else None).prev_sample
        theirs.append(x)
    return furthest(zip(theirs, table.states))


def diffusers_heun(table, scheduler):
    """HeunDiscreteScheduler, in y = x/alpha: every level but the first and the last is there twice."""
    levels = table.levels()
    levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    scheduler = prepared(scheduler, table, levels)
    y, theirs = table.start / table.alpha[0].to(table.dtype), []
    for t, output in zip(scheduler.timesteps, table.outputs):
        y = scheduler.step(output, t, y).prev_sample
        if scheduler.state_in_first_order:
            theirs.append(y)
    return furthest((y * alpha, ours) for y, alpha, ours in zip(theirs, table.alpha[1:], table.states))


def diffusers_euler_ancestral(table, scheduler):
    """EulerAncestralDiscreteScheduler, in y = x/alpha. Its noise is drawn inside, by a function that is replaced here."""
    module = sys.modules[type(scheduler).__module__]
    drawn, noise = module.randn_tensor, iter(table.noise)
    module.randn_tensor = lambda *_, **__: next(noise)
    scheduler = prepared(scheduler, table, table.levels())
    scheduler.is_scale_input_called = True
    try:
        y, theirs = table.start / table.alpha[0].to(table.dtype), []
        for t, output in zip(scheduler.timesteps, table.outputs):
            y = scheduler.step(output, t, y).prev_sample
            theirs.append(y)
    finally:
        module.randn_tensor = drawn
    return furthest((y * alpha, ours) for y, alpha, ours in zip(theirs, table.alpha[1:], table.states))


def row_by_row(table, step):
    """The states of a scheduler that is called once per evaluation."""
    outputs, states = iter(table.outputs), []
    for row in table.rows:
        for _ in row["evaluations"]:
            state = step(next(outputs))
        states.append(state)
    return states


def interleaved(values):
    return torch.cat([values[:1], values[1:].repeat_interleave(2), values[-1:]])


def diffusers_two_stages(table, scheduler):
    """KDPM2DiscreteScheduler, KDPM2AncestralDiscreteScheduler and DPMSolverSDEScheduler, in y = x/alpha."""
    levels = table.levels()
    scheduler = prepared(scheduler, table, interleaved(levels))
    if hasattr(scheduler, "sigmas_up"):
        after = torch.cat([levels[1:], levels.new_zeros(1)])
        up = (after**2 * (levels**2 - after**2) / levels**2) ** 0.5
        down = (after**2 - up**2) ** 0.5
        inner = levels.log().lerp(down.log(), 0.5).exp()
        scheduler.sigmas_up, scheduler.sigmas_down = interleaved(up), interleaved(down)
        scheduler.sigmas_interpol = interleaved(inner)
    elif hasattr(scheduler, "sigmas_interpol"):
        scheduler.sigmas_interpol = interleaved(levels.log().lerp(levels.roll(1).log(), 0.5).exp())
    module, noise, paths = sys.modules[type(scheduler).__module__], iter(table.noise), iter(table.path_noise)
    scheduler.noise_sampler = lambda *_: next(paths)
    drawn = getattr(module, "randn_tensor", None)
    module.randn_tensor = lambda *_, **__: next(noise)
    y, times = table.start / table.alpha[0].to(table.dtype), iter(scheduler.timesteps)

    def step(output):
        nonlocal y
        y = scheduler.step(output, next(times), y).prev_sample
        return y

    try:
        theirs = row_by_row(table, step)
    finally:
        module.randn_tensor = drawn
    return furthest((y * alpha, ours) for y, alpha, ours in zip(theirs, table.alpha[1:], table.states))


def diffusers_singlestep(table, scheduler):
    """DPMSolverSinglestepScheduler, on a grid that has our inner points too."""
    scheduler = prepared(scheduler, table, (table.all_sigma / table.all_alpha).to(table.dtype))
    scheduler.order_list = [i + 1 for row in table.rows for i in range(len(row["evaluations"]))]
    x, times = table.start, iter(scheduler.timesteps)
    ends = {i + len(row["evaluations"]) - 1 for i, row in table.starts_of_rows()}

    def step(output):
        nonlocal x
        ends_row = (scheduler.step_index or 0) in ends
        scheduler.register_to_config(solver_type="midpoint" if ends_row else "heun")
        x = scheduler.step(output, next(times), x).prev_sample
        return x

    return furthest(zip(row_by_row(table, step), table.states))


def k_diffusion_step(table, solver, order):
    """A step of the class DPMSolver, in y = x/alpha: points and states."""
    outputs, points = iter(table.outputs), []

    def model(y, level):
        points.append(y)
        return y - level[:, None] * next(outputs)

    solver, y, states = solver(model), table.start / table.alpha[0].to(table.dtype), []
    times = -table.levels().log()
    for k in range(table.steps):
        y, _ = getattr(solver, f"dpm_solver_{order}_step")(y, times[k], times[k + 1])
        states.append(y)
    pairs = [*zip(states, table.alpha[1:], table.states), *zip(points, table.all_alpha, table.points)]
    return furthest((y * alpha, ours) for y, alpha, ours in pairs)


def k_diffusion(table, sample, **options):
    """A function of k-diffusion, in y = x/alpha. Where it draws its churn by torch.randn_like it is given ours."""
    churn, drawn = iter(table.noise), torch.randn_like
    torch.randn_like = lambda _: next(churn)
    try:
        return k_diffusion_walk(table, sample, **options)
    finally:
        torch.randn_like = drawn


def k_diffusion_walk(table, sample, **options):
    outputs, noise, starts = iter(table.outputs), iter(table.noise), []
    model = lambda y, level: y - level[:, None] * next(outputs)
    y = table.start / table.alpha[0].to(table.dtype)
    last = sample(model, y, table.levels(), callback=lambda at: starts.append(at["x"]), disable=True, **options)
    if "s_churn" in options:
        # what the callback sees has the churn in it: it is the first point of a step
        pairs = [(y, table.all_alpha[k], table.points[k]) for y, (k, _) in zip(starts, table.starts_of_rows())]
        return furthest((y * alpha, ours) for y, alpha, ours in pairs + [(last, table.alpha[-1], table.states[-1])])
    theirs = starts[1:] + [last]
    return furthest((y * alpha, ours) for y, alpha, ours in zip(theirs, table.alpha[1:], table.states))


def diffusers_deis(table, scheduler):
    """DEISMultistepScheduler, which computes its weights by numpy."""
    scheduler = prepared(scheduler, table, table.levels())
    x, theirs = table.start, []
    for t, output in zip(scheduler.timesteps, table.outputs):
        x = scheduler.step(output, t, x).prev_sample
        theirs.append(x)
    return furthest(zip(theirs, table.states))


def diffusers_lms(table, scheduler):
    """LMSDiscreteScheduler, in y = x/alpha."""
    order = scheduler.order_of_table
    scheduler = prepared(scheduler, table, table.levels())
    scheduler.is_scale_input_called = True
    y, theirs = table.start / table.alpha[0].to(table.dtype), []
    for t, output in zip(scheduler.timesteps, table.outputs):
        y = scheduler.step(output, t, y, order=order).prev_sample
        theirs.append(y)
    return furthest((y * alpha, ours) for y, alpha, ours in zip(theirs, table.alpha[1:], table.states))


def diffusers_pndm(table, scheduler):
    """PNDMScheduler: timestep 2k + 1 is node N - 1 - k, and the even ones are the middles of steps."""
    n = table.steps
    alpha = torch.zeros(2 * n, dtype=torch.float64)
    alpha[1::2] = table.alpha[:-1].flip(0)
    middles = {e["at"]["time"]: e["at"]["alpha"] for row in table.rows for e in row["evaluations"]}
    times = [row["evaluations"][0]["at"]["time"] for row in table.rows]
    for k in range(n - 1):
        alpha[2 * (n - 1 - k)] = middles.get(0.5 * (times[k] + times[k + 1]), 1.0)
    scheduler.alphas_cumprod = (alpha**2).to(table.dtype)
    scheduler.final_alpha_cumprod = (table.alpha**2)[-1].to(table.dtype)
    scheduler.set_timesteps(n)
    x, theirs, ours = table.start, [], []
    for row, state in zip(table.rows, table.states):
        points = [torch.tensor([e["point"]], dtype=torch.float64) for e in row["evaluations"]]
        ours += points[1:] + [state]
    assert len(scheduler.timesteps) == len(table.outputs) == len(ours)
    for t, output in zip(scheduler.timesteps, table.outputs):
        x = scheduler.step(output, int(t), x).prev_sample
        theirs.append(x)
    return furthest(zip(theirs, ours))


def diffusers_ipndm(table, scheduler):
    """IPNDMScheduler, whose model gives (E - sigma x)/alpha."""
    scheduler.set_timesteps(table.steps)
    alpha, sigma = table.alpha.to(table.dtype), table.sigma.to(table.dtype)
    scheduler.alphas, scheduler.betas = alpha, sigma
    scheduler.set_begin_index(0)
    x, theirs = table.start, []
    for k, output in enumerate(table.outputs):
        x = scheduler.step((output - sigma[k] * x) / alpha[k], scheduler.timesteps[k], x).prev_sample
        theirs.append(x)
    return furthest(zip(theirs, table.states))


def diffusers_sa_solver(table, scheduler):
    """SASolverScheduler: what it returns is our next point, what it then corrects is our state. Its noise is drawn inside."""
    module = sys.modules[type(scheduler).__module__]
    drawn, noise = module.randn_tensor, iter(table.noise)
    module.randn_tensor = lambda *_, **__: next(noise)
    scheduler = prepared(scheduler, table, table.levels())
    x, points, states = table.start, [], []
    try:
        for t, output in zip(scheduler.timesteps, table.outputs):
            points.append(x)
            x = scheduler.step(output, t, x).prev_sample
            states.append(scheduler.last_sample)
    finally:
        module.randn_tensor = drawn
    states = states[1:] + [x]
    return max(furthest(zip(points, table.points)), furthest(zip(states, table.states)))


def takes_noise(sample):
    return "noise_sampler" in inspect.signature(sample).parameters


def pairs_of_diffusers():
    """Table, the other's name, and how it is run."""
    import diffusers

    zero = lambda name: "zero" if name.endswith("to_zero") else "sigma_min"

    def dpm(name, order, algorithm, rule, lower=False):
        run = lambda: diffusers.DPMSolverMultistepScheduler(
            solver_order=order,
            algorithm_type=algorithm,
            solver_type=rule,
            lower_order_final=lower,
            final_sigmas_type=zero(name),
        )
        return name, f"DPMSolverMultistep {algorithm} {order} {rule}", run, diffusers_multistep, {}

    def unipc(name, order, solver):
        lower = "lower" in name or zero(name) == "zero"
        run = lambda: diffusers.UniPCMultistepScheduler(
            solver_order=order, solver_type=solver, lower_order_final=lower, final_sigmas_type=zero(name)
        )
        return name, f"UniPCMultistep {order} {solver}", run, diffusers_unipc, {}

    def ddim(name, eta):
        run = lambda: diffusers.DDIMScheduler(num_train_timesteps=len(TABLES[name]["rows"]), clip_sample=False)
        return name, f"DDIM eta {eta}", run, diffusers_ddim, {"eta": eta}

    def single(name, order, algorithm):
        run = lambda: diffusers.DPMSolverSinglestepScheduler(
            solver_order=order, algorithm_type=algorithm, lower_order_final=False, final_sigmas_type=zero(name)
        )
        return name, f"DPMSolverSinglestep {algorithm} {order}", run, diffusers_singlestep, {}

    two_stages = lambda name, which: (name, which, getattr(diffusers, which + "Scheduler"), diffusers_two_stages, {})
    def deis(name, order):
        run = lambda: diffusers.DEISMultistepScheduler(solver_order=order, lower_order_final=False)
        return name, f"DEISMultistep {order}", run, diffusers_deis, {}

    def lms(name, order):
        def run():
            scheduler = diffusers.LMSDiscreteScheduler()
            scheduler.order_of_table = order
            return scheduler

        return name, f"LMSDiscrete {order}", run, diffusers_lms, {}

    def pndm(name, skip):
        # one timestep more than the even ones: they begin at 1
        run = lambda: diffusers.PNDMScheduler(
            num_train_timesteps=2 * len(TABLES[name]["rows"]), skip_prk_steps=skip, steps_offset=1
        )
        return name, f"PNDM skip_prk_steps {skip}", run, diffusers_pndm, {}

    def sa_solver(name, p, q, tau, lower=False):
        run = lambda: diffusers.SASolverScheduler(
            predictor_order=p, corrector_order=q, tau_func=lambda _: torch.tensor(tau), lower_order_final=lower
        )
        return name, f"SASolver {p} {q} tau {tau}", run, diffusers_sa_solver, {}

    ipndm = lambda name: (name, "IPNDM", diffusers.IPNDMScheduler, diffusers_ipndm, {})
    heun = lambda name: (name, "HeunDiscrete", diffusers.HeunDiscreteScheduler, diffusers_heun, {})
    ancestral = lambda name: (name, "EulerAncestral", diffusers.EulerAncestralDiscreteScheduler, diffusers_euler_ancestral, {})
    present = lambda of, name, *rest: [of(name, *rest)] if name in TABLES else [(name, "", None, None, {})]
    found = []
    for end in ["", "_to_zero"]:
        for rule in ["midpoint", "heun"]:
            found += present(dpm, f"dpm_solver_ode_{rule}{end}", 2, "dpmsolver++", rule)
            found += present(dpm, f"dpm_solver_sde_{rule}{end}", 2, "sde-dpmsolver++", rule)
        found += present(dpm, f"dpm_solver_ode_1{end}", 1, "dpmsolver++", "midpoint")
        found += present(dpm, f"dpm_solver_sde_1{end}", 1, "sde-dpmsolver++", "midpoint")
        for name, eta in [("dpm_solver_ode_1", 0.0), ("denoiser_held", 1.0), ("ddim_0", 0.0), ("ddim_05", 0.5), ("ddim_1", 1.0)]:
            found += present(ddim, name + end, eta)
        for name in ["edm_heun"]:
            found += present(heun, name + end)
        found += present(dpm, f"dpm_solver_ode_3{end}", 3, "dpmsolver++", "midpoint")
        for order in [2, 4]:
            found += present(lms, f"lms_{order}{end}", order)
        found += present(ipndm, f"ipndm{end}")
        found += present(pndm, f"plms{end}", True)
        found += present(pndm, f"f_pndm{end}", False)
        for name in ["denoiser_held", "ancestral"]:
            found += present(ancestral, name + end)
        for name, which in [
            ("dpm_solver_single_2", "KDPM2Discrete"),
            ("dpm_solver_single_2_ancestral", "KDPM2AncestralDiscrete"),
            ("dpm_solver_pp_sde", "DPMSolverSDE"),
        ]:
            found += present(two_stages, name + end, which)
        for order in [1, 2, 3]:
            found += present(single, f"dpm_solver_pp_single_{order}{end}", order, "dpmsolver++")
            if not end:
                found += present(single, f"dpm_solver_single_{order}", order, "dpmsolver")
        for order in [1, 2, 3]:
            for solver in ["bh1", "bh2"]:
                found += present(unipc, f"uni_pc_{order}_{solver}{end}", order, solver)
    found += present(dpm, "dpm_solver_ode_midpoint_lower", 2, "dpmsolver++", "midpoint", True)
    found += present(dpm, "dpm_solver_ode_3_lower", 3, "dpmsolver++", "midpoint", True)
    for order in [2, 3]:
        found += present(unipc, f"uni_pc_{order}_bh2_lower", order, "bh2")
    for order in [1, 2, 3]:
        found += present(deis, f"deis_{order}", order)
    for p, q in [(1, 2), (2, 2), (3, 3), (3, 4)]:
        found += present(sa_solver, f"sa_solver_{p}_{q}", p, q, 1.0)
    found += present(sa_solver, "sa_solver_2_2_half", 2, 2, 0.5)
    found += present(sa_solver, "sa_solver_3_3_flow", 3, 3, 0.0)
    found += present(sa_solver, "sa_solver_3_4_lower", 3, 4, 1.0, True)
    return found


def pairs_of_k_diffusion():
    # the module alone: the package's __init__ loads networks and metrics that are not needed here
    package = types.ModuleType("k_diffusion")
    package.__path__ = importlib.util.find_spec("k_diffusion").submodule_search_locations
    sys.modules["k_diffusion"] = package
    from k_diffusion import sampling

    found = []
    for end in ["", "_to_zero"]:
        found.append(("dpm_solver_ode_midpoint" + end, sampling.sample_dpmpp_2m, {}))
        for rule in ["midpoint", "heun"]:
            found.append((f"dpm_solver_sde_{rule}{end}", sampling.sample_dpmpp_2m_sde, {"solver_type": rule}))
            found.append((f"dpm_solver_eta_{rule}{end}", sampling.sample_dpmpp_2m_sde, {"solver_type": rule, "eta": 0.5}))
        for name, eta in [("sde", 1.0), ("eta", 0.5)]:
            found.append((f"dpm_solver_{name}_3_heun{end}", sampling.sample_dpmpp_3m_sde, {"eta": eta}))
        found += [(f"lms_{order}{end}", sampling.sample_lms, {"order": order}) for order in [2, 4]]
        found += [(name + end, sampling.sample_heun, {}) for name in ["edm_heun"]]
        found += [(name + end, sampling.sample_euler, {}) for name in ["dpm_solver_ode_1", "ddim_0"]]
        found += [(name + end, sampling.sample_euler_ancestral, {}) for name in ["denoiser_held", "ancestral"]]
        found += [("edm_heun_churned" + end, sampling.sample_heun, {"s_churn": 2.0})]
        found += [("dpm_solver_single_2" + end, sampling.sample_dpm_2, {})]
        found += [("dpm_solver_single_2_churned" + end, sampling.sample_dpm_2, {"s_churn": 2.0})]
        for name, eta in [("", 1.0), ("_05", 0.5)]:
            found.append((f"dpm_solver_single_2_ancestral{name}{end}", sampling.sample_dpm_2_ancestral, {"eta": eta}))
            found.append((f"dpm_solver_pp_single_2_ancestral{name}{end}", sampling.sample_dpmpp_2s_ancestral, {"eta": eta}))
            found.append((f"dpm_solver_pp_sde{name}{end}", sampling.sample_dpmpp_sde, {"eta": eta}))
        found.append(("dpm_solver_pp_single_2" + end, sampling.sample_dpmpp_2s_ancestral, {"eta": 0.0}))
    for order in [1, 2, 3]:
        found.append((f"dpm_solver_single_{order}", sampling.DPMSolver, {"order": order}))
    return found


# What adaptive.json holds: order, tolerances and gains p, i, d of each run. The rest is k-diffusion's defaults.
ADAPTIVE = [(3, 0.05, 0.0078, (0.0, 1.0, 0.0)), (2, 0.05, 0.0078, (0.0, 1.0, 0.0)), (3, 0.01, 0.001, (0.2, 0.6, 0.1))]


def adaptive_run(sample, order, relative, absolute, gains):
    """k-diffusion's adaptive solver for one chain, on a mixture of N(-1, 0.15) and N(1.5, 0.15) with weights 0.4 and 0.6."""
    asked, base, state = [], [0], {"accepted": 0}

    def denoiser(y, level):
        means, variance = torch.tensor([-1.0, 1.5]), 0.15 + level**2
        weights = torch.softmax(torch.tensor([0.4, 0.6]).log() - (y - means) ** 2 / (2 * variance), -1)
        again = len(asked) > base[0] + 1 and asked[base[0]] == [float(level), float(y)]
        if not again:
            asked.append([float(level), float(y)])
        return (weights * (means + 0.15 / variance * (y - means))).sum(-1, keepdim=True)

    def tell(at):
        if at.get("n_accept", 0) > state["accepted"]:
            base[0] = len(asked)
        state.update(accepted=at.get("n_accept", 0), rejected=at.get("n_reject", 0))

    p, i, d = gains
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        end = sample(
            denoiser, torch.tensor([[31.0]]), 0.02, 40.0, callback=tell, disable=True, order=order,
            rtol=relative, atol=absolute, pcoeff=p, icoeff=i, dcoeff=d,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(default)
    of = {"order": order, "relative": relative, "absolute": absolute, "gains": [i, p, d]}
    return {**of, **state, "asked": asked, "end": float(end)}


def compare_adaptive(write):
    """The largest relative difference of adaptive.json from what k-diffusion does now."""
    from k_diffusion import sampling

    runs = [adaptive_run(sampling.sample_dpm_adaptive, *run) for run in ADAPTIVE]
    path = pathlib.Path(__file__).parent / "adaptive.json"
    if write:
        path.write_text("[\n" + ",\n".join(json.dumps(run) for run in runs) + "\n]\n")
    numbers = lambda runs: torch.tensor([v for run in runs for v in [n for pair in run["asked"] for n in pair] + [run["end"]]], dtype=torch.float64)
    ours, theirs = numbers(json.loads(path.read_text())), numbers(runs)
    return float("inf") if len(ours) != len(theirs) else float(((ours - theirs) / theirs).abs().max())


def main():
    missing, worst, lines = set(), 0.0, []

    def add(name, other, run):
        nonlocal worst
        exact, shipped = run(torch.float64), run(torch.float32)
        worst = max(worst, exact) if exact == exact else float("inf")
        lines.append(f"{name:31} {other:66} {exact:9.1e} {shipped:9.1e}")

    try:
        for name, other, scheduler, compare, options in pairs_of_diffusers():
            if scheduler is None:
                missing.add(name)
                continue

            def run(dtype):
                with precision(made := scheduler(), dtype):
                    return compare(Table(name, dtype), made, **options)

            add(name, "diffusers " + other, run)
    except ImportError as error:
        print("diffusers is not compared:", error)
    try:
        for name, sample, options in pairs_of_k_diffusion():
            if name not in TABLES:
                missing.add(name)
                continue

            def run(dtype):
                table = Table(name, dtype)
                if inspect.isclass(sample):
                    return k_diffusion_step(table, sample, **options)
                noise = iter(table.path_noise or table.noise)
                given = {"noise_sampler": lambda *_: next(noise)} if takes_noise(sample) else {}
                return k_diffusion(table, sample, **given, **options)

            add(name, "k-diffusion " + sample.__name__ + "".join(f" {k} {v}" for k, v in options.items()), run)
    except (ImportError, AttributeError) as error:
        print("k-diffusion is not compared:", error)
    else:
        apart = compare_adaptive("--write-adaptive" in sys.argv)
        print(f"adaptive.json and k-diffusion's adaptive solver differ by {apart:.1e} of a number")
        worst = max(worst, apart if apart > 1e-9 else 0.0)
    print(f"{'table':31} {'compared with':66} {'float64':>9} {'shipped':>9}")
    print("\n".join(lines))
    print("no such table:", ", ".join(sorted(missing)) or "none")
    print(f"largest difference in float64: {worst:.1e}; taken for rounding up to {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
