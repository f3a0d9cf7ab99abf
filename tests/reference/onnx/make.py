"""Networks as ONNX files and what PyTorch and diffusers make of them, for tests/learning/onnx.rs and tests/suite/processes_discrete.rs.

    pip install torch diffusers onnx onnxscript
    python tests/reference/onnx/make.py

The files in the repository were made with the versions that their `versions` name: torch 2.15.0, diffusers 0.42.1,
onnx 1.23.2, onnxscript 0.7.2, numpy 2.4.6. Other versions may train to other weights; run the whole script then, so that networks
and numbers fit together.

mlp.onnx         noise prediction on two moons under the Ornstein-Uhlenbeck process, briefly trained.
                 x [batch, 2], t [batch] -> noise [batch, 2]
mlp_static.onnx  the same weights, x [4, 2], t a scalar
mlp_vector.onnx  random weights, x [batch, 2], t [batch, 1], y [batch, 3] -> noise [batch, 2]
unet.onnx        diffusers' UNet2DModel, random weights, sample [batch, 1, 8, 8], timestep [batch] (i64)
unet_class.onnx  the same with class_labels [batch] (i64), classes 0 to 2 and 3 for none
scheduler/       scheduler_config.json as diffusers writes it, one for each kind of schedule
small/           graphs of an operator or two: what works without training, and what must be refused
"""

import json
import math
import os
import pathlib
import platform
import shutil
import warnings

import diffusers
import numpy as np
import onnx
import onnxscript
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).resolve().parent
VERSIONS = {
    "python": platform.python_version(),
    "torch": torch.__version__,
    "diffusers": diffusers.__version__,
    "onnx": onnx.__version__,
    "onnxscript": onnxscript.__version__,
    "numpy": np.__version__,
}
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def numbers(x):
    """All elements, row after row, with the digits that tell one float of their type from the next."""
    return [float(str(v)) for v in x.detach().numpy().flatten()]


def write(name, **content):
    text = json.dumps({"versions": VERSIONS, **content}, separators=(",", ":"))
    (HERE / name).write_text(text.replace(',"', ',\n"').replace("],[", "],\n[") + "\n")


def export(model, args, name, inputs, outputs, dynamic):
    path = HERE / name
    torch.onnx.export(
        model.eval(),
        args,
        str(path),
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=dynamic,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    # the exporter's notes on every node are most of a small file
    proto = onnx.load(str(path))
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))
    print(name, os.path.getsize(path), sorted({n.op_type for n in proto.graph.node}))


BATCH = torch.export.Dim("batch")


class Mlp(torch.nn.Module):
    """Three layers on the state, the time's Fourier features and, if any, a vector."""

    def __init__(self, vector=0):
        super().__init__()
        self.register_buffer("frequencies", 0.5 * 2.0 ** torch.arange(4.0))
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2 + 8 + vector, 64),
            torch.nn.SiLU(),
            torch.nn.Linear(64, 64),
            torch.nn.SiLU(),
            torch.nn.Linear(64, 2),
        )

    def forward(self, x, t, *y):
        angle = torch.log(t).reshape(-1, 1) * self.frequencies
        features = torch.cat([torch.sin(angle), torch.cos(angle)], 1).expand(x.shape[0], 8)
        return self.layers(torch.cat([x, features, *y], 1))


def two_moons(n, generator):
    angle = math.pi * torch.rand(n, generator=generator)
    side = torch.randint(0, 2, (n,), generator=generator)
    x = torch.stack([torch.cos(angle), torch.sin(angle)], 1)
    other = torch.stack([1.0 - torch.cos(angle), 0.5 - torch.sin(angle)], 1)
    x = torch.where(side[:, None] == 0, x, other) - torch.tensor([0.5, 0.25])
    return x + 0.05 * torch.randn(n, 2, generator=generator)


def mlp():
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    model = Mlp()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    steps, first = 4000, None
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        x0 = two_moons(512, generator)
        t = torch.exp(torch.empty(512).uniform_(math.log(0.01), math.log(3.0), generator=generator))
        noise = torch.randn(512, 2, generator=generator)
        x = torch.exp(-t)[:, None] * x0 + torch.sqrt(-torch.expm1(-2.0 * t))[:, None] * noise
        loss = ((model(x, t) - noise) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first = loss.item() if first is None else first
    print("two moons: loss", first, "->", loss.item())
    model.eval()

    export(model, (torch.zeros(4, 2), torch.full((4,), 0.5)), "mlp.onnx", ["x", "t"], ["noise"], ({0: BATCH}, {0: BATCH}))
    export(model, (torch.zeros(4, 2), torch.tensor(0.5)), "mlp_static.onnx", ["x", "t"], ["noise"], None)

    # the noise prediction at some times, in single and in double precision
    model.requires_grad_(False)
    exact = Mlp().double()
    exact.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    exact.requires_grad_(False)
    points = []
    for t in [0.0125, 0.1, 0.75, 2.5]:
        x = torch.randn(7, 2, generator=generator)
        times = torch.full((7,), t)
        points.append({
            "t": t,
            "x": numbers(x),
            "noise": numbers(model(x, times)),
            "double": numbers(exact(x.double(), torch.full((7,), t, dtype=torch.float64))),
        })

    # Probability flow, the score held over a step from t to v with h = t - v:
    #     x <- e^h x + (e^h - 1) s(t, x),     s = -noise / sigma_t,     sigma_t^2 = 1 - e^-2t
    # coefficients in double, states in single precision
    n = 20
    times = [2.5 * (0.02 / 2.5) ** (k / n) for k in range(n + 1)]
    x = torch.randn(16, 2, generator=generator)
    states = [numbers(x)]
    for t, v in zip(times, times[1:]):
        noise = model(x, torch.full((16,), t))
        score = noise * (-1.0 / math.sqrt(-math.expm1(-2.0 * t)))
        x = math.exp(t - v) * x + math.expm1(t - v) * score
        states.append(numbers(x))
    write("mlp.json", points=points, run={"times": times, "states": states})


def mlp_vector():
    torch.manual_seed(2)
    model = Mlp(3)
    args = (torch.zeros(4, 2), torch.full((4, 1), 0.5), torch.zeros(4, 3))
    export(model, args, "mlp_vector.onnx", ["x", "t", "y"], ["noise"], ({0: BATCH}, {0: BATCH}, ({0: BATCH},)))
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(5, 2, generator=generator), torch.randn(5, 3, generator=generator)
    t = torch.tensor([0.05, 0.2, 0.2, 1.5, 3.0])
    write("mlp_vector.json", x=numbers(x), y=numbers(y), t=numbers(t), noise=numbers(model(x, t[:, None], y)),
          unconditional=numbers(model(x, t[:, None], torch.zeros(5, 3))))


class Plain(torch.nn.Module):
    """A diffusers network whose output is a tensor."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, *labels):
        return self.unet(sample, timestep, *labels, return_dict=False)[0]


def unet(classes=None):
    torch.manual_seed(4)
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        num_class_embeds=classes,
    ).eval()


def unets():
    net = unet()
    export(Plain(net), (torch.zeros(2, 1, 8, 8), torch.tensor([7, 7])), "unet.onnx", ["sample", "timestep"], ["noise"],
           ({0: BATCH}, {0: BATCH}))
    generator = torch.Generator().manual_seed(5)
    points = []
    for timestep in [0, 1, 437, 999]:
        x = torch.randn(2, 1, 8, 8, generator=generator)
        output = net(x, torch.full((2,), timestep)).sample
        points.append({"timestep": timestep, "x": numbers(x), "noise": numbers(output)})

    # DDIM with eta = 0: the training run of the config below, no clipping
    ddpm = DDPMScheduler(clip_sample=False)
    ddim = DDIMScheduler.from_config(ddpm.config)
    ddim.set_timesteps(20)
    x = torch.randn(2, 1, 8, 8, generator=generator)
    states = [numbers(x)]
    for timestep in ddim.timesteps:
        x = ddim.step(net(x, timestep).sample, timestep, x).prev_sample
        states.append(numbers(x))
    write("unet.json", points=points, run={"timesteps": ddim.timesteps.tolist(), "states": states})

    net = unet(4)
    args = (torch.zeros(2, 1, 8, 8), torch.tensor([7, 7]), torch.tensor([0, 1]))
    export(Plain(net), args, "unet_class.onnx", ["sample", "timestep", "class_labels"], ["noise"],
           ({0: BATCH}, {0: BATCH}, ({0: BATCH},)))
    x = torch.randn(3, 1, 8, 8, generator=generator)
    labels, timestep, scale = torch.tensor([0, 2, 1]), 400, 2.5
    given = net(x, torch.full((3,), timestep), labels).sample
    none = net(x, torch.full((3,), timestep), torch.full((3,), 3)).sample
    write("unet_class.json", timestep=timestep, scale=scale, x=numbers(x), labels=labels.tolist(), noise=numbers(given),
          unconditional=numbers(none), guided=numbers(none + scale * (given - none)))


def schedulers():
    """Tables of betas and alpha_bars, in diffusers' single precision, with the config that makes them."""
    folder = HERE / "scheduler"
    shutil.rmtree(folder, ignore_errors=True)
    made = {
        "ddpm_linear": DDPMScheduler(),
        "ddim_scaled_linear": DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                            clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        "ddpm_cosine": DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction",
                                     timestep_spacing="trailing", num_train_timesteps=500),
        "ddpm_sigmoid": DDPMScheduler(beta_schedule="sigmoid", prediction_type="sample", clip_sample_range=2.0),
        "ddim_zero_snr": DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                                       rescale_betas_zero_snr=True, prediction_type="v_prediction",
                                       timestep_spacing="linspace"),
        "ddpm_trained": DDPMScheduler(trained_betas=[0.001, 0.004, 0.002, 0.03, 0.1], num_train_timesteps=5),
    }
    tables = []
    for name, scheduler in made.items():
        scheduler.save_config(str(folder))
        (folder / "scheduler_config.json").rename(folder / f"{name}.json")
        steps = min(20, scheduler.config.num_train_timesteps)
        scheduler.set_timesteps(steps)
        last = scheduler.config.num_train_timesteps - 1
        at = sorted({*range(0, last, 50), *range(min(4, last)), last - 1, last})
        tables.append({
            "name": name,
            "at": at,
            "betas": numbers(scheduler.betas[at]),
            "alpha_bars": numbers(scheduler.alphas_cumprod[at]),
            "inference_steps": steps,
            "timesteps": scheduler.timesteps.tolist(),
        })
    from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

    for name, scheduler in {"flow": FlowMatchEulerDiscreteScheduler(), "edm": EDMEulerScheduler()}.items():
        scheduler.save_config(str(folder))
        (folder / "scheduler_config.json").rename(folder / f"{name}.json")
    write("schedules.json", tables=tables)


def small():
    """Graphs by hand."""
    (HERE / "small").mkdir(exist_ok=True)
    single, double, batch = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, ["batch", 2]

    def graph(name, nodes, inputs, output, domains=(), kind=single):
        value = onnx.helper.make_tensor_value_info
        ports = [value(n, kind, shape) for n, shape in inputs.items()]
        proto = onnx.helper.make_model(
            onnx.helper.make_graph(nodes, name, ports, [value("out", kind, output)]),
            opset_imports=[onnx.helper.make_opsetid("", 18), *(onnx.helper.make_opsetid(d, 1) for d in domains)],
            ir_version=9,
        )
        onnx.save(proto, str(HERE / "small" / f"{name}.onnx"))

    node = onnx.helper.make_node
    # the score of N(0, I)
    graph("standard", [node("Neg", ["x"], ["out"])], {"x": batch}, batch)
    graph("double", [node("Neg", ["x"], ["out"])], {"x": batch}, batch, kind=double)
    # an operator that no runtime has
    graph("unknown", [node("Frobnicate", ["x"], ["out"], domain="elsewhere")], {"x": batch}, batch, ["elsewhere"])
    # a row's output depends on the other rows
    mean = [node("ReduceSum", ["x"], ["mean"]), node("Sub", ["x", "mean"], ["out"])]
    graph("coupled", mean, {"x": batch}, batch)
    # the output has one number for each row
    axes = node("Constant", [], ["axes"], value_ints=[1])
    graph("narrow", [axes, node("ReduceSum", ["x", "axes"], ["out"])], {"x": batch}, ["batch", 1])
    # nothing says which input is the state
    graph("twins", [node("Add", ["x", "z"], ["sum"]), node("Mul", ["sum", "t"], ["out"])],
          {"x": batch, "z": batch, "t": ["batch", 1]}, batch)
    # height and width are left open
    open_shape = ["batch", 1, "height", "width"]
    graph("open", [node("Neg", ["x"], ["out"])], {"x": open_shape}, open_shape)
    # x times [2, 3], with the weights in a second file
    path = HERE / "small" / "split.onnx"
    weights = onnx.numpy_helper.from_array(np.array([2.0, 3.0], np.float32), "w")
    graph("split", [node("Mul", ["x", "w"], ["out"])], {"x": batch}, batch)
    proto = onnx.load(str(path))
    proto.graph.initializer.append(weights)
    path.with_suffix(".onnx.data").unlink(missing_ok=True)
    onnx.save(proto, str(path), save_as_external_data=True, location="split.onnx.data", size_threshold=0)


if __name__ == "__main__":
    small()
    with torch.no_grad():
        schedulers()
        unets()
        mlp_vector()
    mlp()
