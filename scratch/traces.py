"""One-off: traces of every known model by who acts, and how evaluated episodes go by how they plan."""
import sys
from pathlib import Path
import numpy as np, torch
from hypercrl.agent.belief import Told
from hypercrl.agent.exploration import make_noise
from hypercrl.agent.known_tasks import TaskPosterior
from hypercrl.base.random_streams import derive_seed
from hypercrl.training.open_run import open_run
torch.set_num_threads(1)
run, out, E = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

class Draw(TaskPosterior):
    """Plans for one hypothesis: argmax of evidence plus Gumbel noise that is drawn once an episode."""
    every = False
    def probabilities(self):
        if self.every or not hasattr(self, "g"):
            self.g = -torch.log(-torch.log(torch.rand_like(self.evidence)))
        return torch.nn.functional.one_hot((self.evidence + self.g).argmax(1), self.evidence.shape[1]).to(self.evidence)
class DrawEvery(Draw):
    every = True

def go(x, task, E, acting, seed, std, noise_seed):
    config = x.config; dev = x.device
    robots = [x.sequence.make(task) for _ in range(E)]
    noise = make_noise(robots[0], config.exploration, E, torch.Generator().manual_seed(noise_seed))
    agent = x.agent(task, robots[0], E, torch.Generator(dev).manual_seed(seed)); agent.believe(acting)
    obs = torch.stack([torch.from_numpy(r.reset(seed=derive_seed(seed, i))[0]) for i, r in enumerate(robots)])
    for r in range(E): noise.reset(r)
    O, A = [obs], []; ret = torch.zeros(E)
    for _ in range(x.sequence.episode_steps[task]):
        a = (agent.act(obs) + std * noise.step()).clamp(-1, 1)
        st = [r.step(v.numpy()) for r, v in zip(robots, a, strict=True)]
        after = torch.from_numpy(np.stack([s[0] for s in st])); agent.observe(obs, a, after)
        ret += torch.tensor([float(s[1]) for s in st]); obs = after; O.append(obs); A.append(a)
    for r in robots: r.close()
    return torch.stack(O), torch.stack(A), ret.numpy(), np.array([bool(s[4]["success"]) for s in st])

found = {}
with torch.no_grad():
    for cp in ("after_task_1", "after_task_2", "after_task_3"):
        x = open_run(run, "cuda", cp); known = x.method.tasks; scale = x.model.target_normaliser.scale
        told = [Told(x.method.planner_layers(k)(None)) for k in range(known)]
        own = []
        for t in range(3):
            for a in range(known):
                seed = derive_seed(x.config.seed, "traces", t, a)
                O, A, ret, succ = go(x, t, E, told[a], seed, x.config.exploration.planned_std, seed)
                o, c, n = (p.to(x.device).flatten(0, 1) for p in (O[:-1], A, O[1:]))
                errs = torch.stack([(b.predict(o, c[:, None])[:, 1] - n) / scale for b in told]).view(known, *A.shape[:2], -1)
                found[f"{cp}/{t}/{a}/err"] = errs.half().cpu().numpy(); found[f"{cp}/{t}/{a}/ret"] = ret; found[f"{cp}/{t}/{a}/succ"] = succ
                if t == a: own.append(errs[a].square().mean().item())
        if known == 3:
            for t in range(3):
                for name, kind, share in (("mix", TaskPosterior, 1), ("mix/4", TaskPosterior, .25), ("draw", Draw, 1), ("draw/4", Draw, .25), ("every", DrawEvery, 1), ("told", None, 1)):
                    b = told[t] if kind is None else kind(told, scale, 20, share * float(np.median(own)))
                    *_, ret, succ = go(x, t, 20, b, derive_seed(x.config.seed, "mix", t), 0.0, 0)
                    print(run.name, t, name, "success", succ.mean(), "return", round(float(ret.mean()), 1), flush=True)
                    found[f"eval/{t}/{name}"] = np.array([succ.mean(), ret.mean()])
np.savez_compressed(out, **found)
