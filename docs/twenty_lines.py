"""One screen: a torch module, the distances of 20 images by local substitutes, a table, a plot, a gate.

Needs scikit-learn and pandas.
"""

import torch
from sklearn.datasets import load_digits

import onnxsub

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32").reshape(-1, 1, 8, 8)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
optimiser = torch.optim.Adam(net.parameters(), 0.01)
for _ in range(100):
    optimiser.zero_grad()
    torch.nn.functional.cross_entropy(net(torch.from_numpy(x[:1500])), torch.from_numpy(y[:1500])).backward()
    optimiser.step()

table = onnxsub.distance(net, x[1500:1520], label=y[1500:1520], method="lin", gamma=0.9, timeout=30, progress=True)
print(table.to_pandas()[["label", "status", "lower", "upper", "original_lower", "original_upper"]])
table.plot().savefig("distances.png")
print(onnxsub.gate(net, data=x[1500:1520], labels=y[1500:1520], eps=0.01, min_proved=0.8))
