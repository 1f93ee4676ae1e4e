"""Labels that are inferred from prediction errors: no boundary is announced but the first."""

from typing import Any

from hypercrl.agent.belief import Belief
from hypercrl.agent.known_tasks import TaskPosterior, Watched
from hypercrl.agent.task_inference import Change, InferenceConfig, TaskInference
from hypercrl.agent.task_labels import Ended, TaskLabels
from hypercrl.agent.trials import Episode, Trials
from hypercrl.methods import Method


class InferredLabels(TaskLabels):
    """The agent's tasks are those that it tells apart; the sequence's numbers are not looked at.

    Args:
        method: see `TaskLabels`.
        config: of the inference.
    """

    def __init__(self, method: Method, config: InferenceConfig) -> None:
        super().__init__(method)
        self.inference = TaskInference(config)
        self.trials = Trials(config.trial, config.trial_error, method.model.obs_size)
        self._watched: Watched

    @property
    def learns(self) -> bool:
        """Not while it is suspicious either: what may be of a new task would be mixed into the old
        one."""
        return self.keeps and not self.inference.suspicious

    @property
    def keeps(self) -> bool:
        """Not if the agent has gone back to another task; what trials show may be a new one's."""
        return self.trials.open or self.inference.current == self.inference.known - 1

    @property
    def acting(self) -> int:
        """The task, as the agent counts them, whose model acts."""
        return self.trials.waiting[0] if self.trials.open else self.inference.current

    def announces(self, task: int) -> bool:
        return task == 0

    def begin(self) -> None:
        self.inference.begin_new()
        self.trials.begin_new()

    def new_motion(self) -> None:
        self.inference.learn_more()

    def after_step(self, ended: Ended | None = None) -> Change | None:
        errors = self._watched.errors[0].cpu()
        episode = self.trials.step(errors[self.acting], ended)
        if self.trials.open:
            return None if episode is None else self._judge(episode)
        change = self.inference.step(errors.square().mean(-1).tolist())
        if change is not None:
            return self._try_known(change)
        if episode is not None:
            self.trials.doubted.append(episode)
        if not self.inference.doubts:
            self.trials.keep(self.inference.current)
        return None

    def _try_known(self, change: Change) -> Change:
        """Before another task's model is believed in. The present one first, as most alarms are
        false; last, if its errors have been above the usual ones for long: by then it may have
        learned from another task's steps, and in them it errs no more than is usual of it."""
        inference, trials = self.inference, self.trials
        if inference.lasting > inference.config.steady:
            tasks = [*inference.others, inference.current]
        else:
            tasks = [inference.current, *inference.others]
        if trials.begin(tasks):
            return Change(self.acting, change.strange, decided=False)
        if change.task < inference.known:
            inference.go_back(change.task)
        return change

    def _judge(self, episode: Episode) -> Change | None:
        inference, trials = self.inference, self.trials
        tried, steps, results = self.acting, trials.steps, trials.results
        back = trials.judge(episode)
        if back is None:
            return None
        if not back and trials.open:
            return Change(self.acting, 0, decided=False)
        trials.end()
        if not back:
            if inference.known < inference.config.max_tasks:
                return Change(inference.known, steps, first=steps, trials=results)
            tried = min(results, key=results.__getitem__)
        changed = tried != inference.current
        newest = tried == inference.known - 1
        own = newest and len(results) == 1  # no other model has acted in them
        inference.go_back(tried)
        return Change(tried, 0 if own else steps, decided=changed, trials=results)

    def training_belief(self, task: int, robots: int) -> Watched:  # noqa: ARG002
        """That the task is the one believed in, with an eye on the errors of all others."""
        beliefs = [self._of_known(known, robots) for known in range(self.method.tasks)]
        scale = self.method.model.target_normaliser.scale
        self._watched = Watched(beliefs, scale, robots, self.acting)
        return self._watched

    def belief(self, task: int, robots: int) -> Belief:  # noqa: ARG002
        """That any known task is possible."""
        tasks = self.inference.settled
        beliefs = [self._of_known(known, robots) for known in tasks]
        if len(beliefs) == 1:
            return beliefs[0]
        scale = self.method.model.target_normaliser.scale
        usual = self.trials.covariances(tasks, self.inference.expected_error)
        return TaskPosterior(beliefs, scale, robots, usual)

    def state(self) -> dict[str, Any]:
        return {**self.inference.state(), "trials": self.trials.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.inference.load_state(state)
        if "trials" in state:
            self.trials.load_state(state["trials"])
        else:  # saved before there were trials
            for _ in range(self.inference.known):
                self.trials.begin_new()
        if len(self.trials.usual) != self.inference.known:
            raise ValueError(f"trials are not of {self.inference.known} tasks")
