"""PyTorch in inference mode: eager, by `torch.compile`, and exported to onnxruntime."""

import io

import numpy as np
import torch
from torch import nn

from experiments.speed.frameworks import protocol
from experiments.speed.frameworks import pytorch as training
from experiments.speed.inference_parts import measurement


class Classifier(nn.Module):
    """float32 [B, 1, 28, 28] for the cnn, else [B, 28, 28] -> probabilities [B, 10]."""

    def __init__(self, name: str):
        super().__init__()
        self.body = build_model(name)

    def forward(self, images):
        return torch.softmax(self.body(images), -1)


def build_model(name: str) -> nn.Module:
    """The shape of the model's preset; the mlp's is not that of the training study."""
    if name != "mlp":
        return training.build_model(name)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def build(task: protocol.Task) -> protocol.Benchmark:
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    model = Classifier(task.model).eval()
    versions = {"torch": torch.__version__}
    if task.framework == "onnxruntime":
        predict, versions["onnxruntime"] = export(task, model)
    else:
        predict = in_torch(task, model)
    return measurement.benchmark(
        task,
        predict,
        versions,
        sum(parameter.numel() for parameter in model.parameters()),
        training.redundant_params(task.model),
    )


def in_torch(task: protocol.Task, model: nn.Module) -> measurement.Predict:
    is_cnn = task.model == "cnn"
    layout = torch.channels_last if is_cnn else torch.contiguous_format
    model = model.to(memory_format=layout)
    if task.framework == "torch_compiled":
        model = torch.compile(model, dynamic=False)

    @torch.inference_mode()
    def predict(images):
        batch = torch.from_numpy(images[..., 0]).float() / 255
        if is_cnn:
            batch = batch.unsqueeze(1).to(memory_format=layout)
        return model(batch).numpy()

    return predict


def export(task: protocol.Task, model: nn.Module) -> tuple[measurement.Predict, str]:
    """One session for each batch size, which onnxruntime optimizes for it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    sessions = {}

    def session(shape):
        if shape not in sessions:
            buffer = io.BytesIO()
            torch.onnx.export(model, (torch.zeros(shape),), buffer, dynamo=False)
            sessions[shape] = onnxruntime.InferenceSession(
                buffer.getvalue(), options, providers=["CPUExecutionProvider"]
            )
        return sessions[shape]

    def predict(images):
        batch = images[..., 0].astype(np.float32) / 255
        if task.model == "cnn":
            batch = batch[:, None]
        one = session(batch.shape)
        return one.run(None, {one.get_inputs()[0].name: batch})[0]

    return predict, onnxruntime.__version__


if __name__ == "__main__":
    protocol.serve(build)
