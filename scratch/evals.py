"""One-off: how evaluated episodes of a run without labels go by how sharply, and for what, they plan."""
import sys, json
from pathlib import Path
import numpy as np, torch
from hypercrl.agent.known_tasks import TaskPosterior
from hypercrl.base.random_streams import derive_seed
from hypercrl.training.open_run import open_run
torch.set_num_threads(1)
run, out, E = Path(sys.argv[1]), Path(sys.argv[2]), 10
class Draw(TaskPosterior):
    def probabilities(self):
        if not hasattr(self, "g"):
            self.g = -torch.log(-torch.log(torch.rand_like(self.evidence)))
        return torch.nn.functional.one_hot((self.evidence + self.g).argmax(1), self.evidence.shape[1]).to(self.evidence)
x = open_run(run, "cuda", "latest"); scale = x.model.target_normaliser.scale; labels = x.labels
settled = labels.inference.settled; expected = labels.inference.expected_error
found = {"levels": labels.inference.levels, "expected": expected, "settled": settled}
with torch.no_grad():
    for t in range(3):
        robots = [x.sequence.make(t) for _ in range(E)]
        agent = x.agent(t, robots[0], E, torch.Generator(x.device))
        for name, kind, share in (("mix", TaskPosterior, 1), ("mix/4", TaskPosterior, .25), ("mix/16", TaskPosterior, 1 / 16), ("draw/4", Draw, .25)):
            torch.manual_seed(t)
            b = kind([labels._of_known(k, E) for k in settled], scale, E, share * expected)
            agent.believe(b); agent.reset(); agent.generator.manual_seed(7)
            obs = torch.stack([torch.from_numpy(r.reset(seed=derive_seed(x.config.seed, "evals", t, i))[0]) for i, r in enumerate(robots)])
            still = 0.0
            for s in range(x.sequence.episode_steps[t]):
                a = agent.act(obs).clamp(-1, 1); still += float((a.abs().amax(1) < 0.2).float().mean()) if s < 20 else 0
                st = [r.step(v.numpy()) for r, v in zip(robots, a, strict=True)]
                after = torch.from_numpy(np.stack([q[0] for q in st])); agent.observe(obs, a, after); obs = after
            found[f"{t} {name}"] = [float(np.mean([bool(q[4]["success"]) for q in st])), still / 20]
            print(run.name, t, name, "success", found[f"{t} {name}"][0], "share of the first 20 steps below .2", round(still / 20, 2), flush=True)
out.write_text(json.dumps(found))
