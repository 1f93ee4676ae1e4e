import torch

# Small tensors: a second thread costs more than it brings, and test workers share the cores.
torch.set_num_threads(1)
