"""Neural Architecture Optimization: gradient steps in the embedding space of an encoder-predictor-decoder.

Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018, arXiv 1808.07233. Random seeds; then per
round: fit the controller to every score so far, step from the best architectures along the predictor's gradient,
decode, and measure what is new.

Fit j and its queue of proposals are a function of the config, the seed and the trials the fit was given, so nothing
of them has to be stored. Proposal k is the first of the queue that was never asked.

Differs from the paper: an architecture and its twins are one and never asked twice; a round that runs dry is filled
with mutants of its own proposals; `default` decodes more than it needs and asks the best predicted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nao_ray import pareto
from nao_ray import rng as streams
from nao_ray.controllers.base import Controller, one_thread
from nao_ray.controllers.descriptors import num_live_params
from nao_ray.controllers.fit import Draws, FitReport, fit
from nao_ray.controllers.gp_controller import GpController, fit_process
from nao_ray.controllers.mlp_controller import MlpController
from nao_ray.controllers.pretraining import Pretrained, pretrain
from nao_ray.spaces.base import Genotype, SearchSpace, Tokens
from nao_ray.strategies.base import Earlier, Strategy, refuse_outside
from nao_ray.strategies.parts.first_batches import FirstBatches
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.nao_early import Early, early
from nao_ray.strategies.parts.nao_fits import Scored, outcome, predicted_gain
from nao_ray.strategies.parts.nao_memory import Memory
from nao_ray.strategies.parts.nao_objectives import Objectives
from nao_ray.strategies.parts.nao_round import Observation, Round, fresh
from nao_ray.strategies.parts.nao_rungs import Rungs, foundation
from nao_ray.strategies.parts.nao_shares import blind_share, reached_share, unpaid_share, with_blind
from nao_ray.strategies.parts.warm_start import WarmStart
from nao_ray.trial import Diagnostics, Fidelity, Proposal, Trial

_MIN_RANDOM = 2  # seeds that are no earlier pool's
_Process = tuple[GpController, FitReport, Rungs]
_MIN_COMPLETED = 2  # trials with a score a fit needs; a round with fewer is random


class Nao(Strategy[NaoConfig]):
    """Seeds, then rounds of the controller."""

    Config = NaoConfig
    ranks_several = ranks_rungs = foresees = True

    def __init__(self, space: SearchSpace[Any], config: NaoConfig, seed: int, fidelity: Fidelity) -> None:
        super().__init__(space, config, seed, fidelity)
        given = (space.canonical(space.parse(text)) for text in config.seed_genotypes)
        self._given: list[Genotype] = list(dict.fromkeys(given))
        refuse_outside(space, "strategy.seed_genotypes", self._given)
        self._num_seeds = max(config.seeds, len(self._given))
        self._memory = Memory()
        self._pretrained: Pretrained | None = None
        self._fitted: tuple[int, MlpController] | None = None
        self._process: tuple[list[int], _Process] | None = None  # what it was fitted to, by trial id
        # by fit, what stands beside it, and what was heard
        self._current: tuple[tuple[int, int, int], list[Proposal]] = ((-1, 0, 0), [])
        self._rows: list[Diagnostics] = []
        self._used_up = False
        self._first = FirstBatches(space, config, seed)
        self._scored = Scored()
        self._earlier = WarmStart(space, ())

    def learn_from(self, earlier: Sequence[Earlier]) -> None:
        self._earlier = WarmStart(self.space, earlier)
        last = self._num_seeds - _MIN_RANDOM  # some random ones show whether the earlier pools mislead
        self._given = list(dict.fromkeys([*self._given, *self._earlier.bests()[: max(0, last - len(self._given))]]))

    # -- proposals ----------------------------------------------------------------------------------------

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        assert self._earlier or not self.config.warm_start, "learn_from comes before the first ask"
        if self.done:
            return None
        if k < self._num_seeds:
            return self._seed(k, rng)
        index = self._fit_index(k)
        if index is None:
            return None
        told, asked = self._memory.told, self._memory.asked
        first = None if self.objectives or self._earlier else self._first(told, asked, self.visited, rng)
        if first or index == 0:  # steady, and too few results for a fit: keep the workers busy
            return first or self._large(rng)
        for draft in self._queue(index):
            if draft.genotype.key not in self.visited:
                return draft
        return self._new(rng, [draft.genotype for draft in self._queue(index)], index)

    @property
    def done(self) -> bool:
        limit = self._limit
        return self._used_up or (limit is not None and self.num_asked >= limit)

    @property
    def unguided(self) -> int:
        return self._num_seeds

    @property
    def _limit(self) -> int | None:
        rounds = self.config.rounds
        return None if rounds is None else self._num_seeds + rounds * self.config.round_size

    def _seed(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if k < len(self._given):
            return Proposal(genotype=self._given[k], round=0)
        return self._new(rng, (), 0)

    def _new(self, rng: np.random.Generator, origins: Sequence[Genotype], index: int) -> Proposal | None:
        genotype = fresh(self.space, origins, self.visited, rng)
        self._used_up = genotype is None
        return None if genotype is None else Proposal(genotype=genotype, round=index)

    def _large(self, rng: np.random.Generator) -> Proposal | None:
        drafts = [self._new(rng, (), 0) for _ in range(self.config.largest_of)]
        found = [draft for draft in drafts if draft is not None]
        return max(found, key=lambda draft: num_live_params(self.space.lower(draft.genotype)), default=None)

    def _fit_index(self, k: int) -> int | None:
        """Which fit proposal k comes from; None: wait for results; 0: random, there is no fit yet."""
        if self.config.mode == "rounds":
            index = 1 + (k - self._num_seeds) // self.config.round_size
            return index if self.num_told >= self._fit_at(index) else None
        return max(0, 1 + (self.num_told - self._fit_at(1)) // self._refit_every)

    def _fit_at(self, index: int) -> int:
        """Number of results fit `index` (from 1) is given."""
        if self.config.mode == "rounds":
            return self._num_seeds + (index - 1) * self.config.round_size
        first = max(2, 3 * self._num_seeds // 4)  # the slowest seeds do not hold up the first fit
        return first + (index - 1) * self._refit_every

    @property
    def _refit_every(self) -> int:
        return self.config.refit_every or (1 if self.config.predictor == "gp" else self.config.round_size)

    # -- fits ---------------------------------------------------------------------------------------------

    def _queue(self, index: int) -> list[Proposal]:
        given = index, self._memory.beside_given(index), self.times_heard
        if self._current[0] != given:
            self._current = given, self._make_queue(index)
        return self._current[1]

    def _make_queue(self, index: int) -> list[Proposal]:
        known = self._known(index)
        rungs = Rungs(_completed(known))
        row: dict[str, float | int | str | None] = {"round": index, "num_trials": len(rungs.of_base)}
        queue: list[Proposal] = []
        if len(rungs.of_base) >= _MIN_COMPLETED:
            with one_thread():
                controller: Controller
                if self.config.predictor == "gp":
                    controller, report, rungs = self._fit_gp(index, known)
                else:
                    controller, report = self._fit(index)
                several = self._several(rungs.of_base)
                pending = self._memory.pending(known, index)
                said = None if several else early(self._pool(index, known), pending, self.heard)
                guide = controller if said is None else self._with_early(self._pool(index, known), said)
                sources = self._ranked(rungs, guide, several, said)
                generation = Round(
                    space=self.space,
                    controller=guide,
                    config=self.config,
                    index=index,
                    sources=sources[: self.config.top_k],
                    pending=list((pending if said is None else said.rest(pending)).values()),
                    taken={seen.genotype.key for seen in known} | {genotype.key for genotype in pending.values()},
                    generator=streams.child(self.seed, "round", index),
                    objectives=several,
                )
                queue = generation.queue()
                reached = reached_share(rungs.of_base)
                share = self._blind_share(report, reached)
                if share:
                    draws = streams.child(self.seed, "blind", index)
                    queue = with_blind(queue, share, self.space, generation.sources, generation.taken, draws)
            row |= self._scored.row(generation.scored)
            if isinstance(controller, GpController):
                row |= {**controller.row(), "blind_share": share, "reached_share": reached}
                row |= {} if said is None else said.row()
                if several is None:
                    row["recommended"] = self._pool(index, known)[controller.recommended()].trial_id
                if controller.transfer is not None and self._earlier:
                    row |= controller.transfer.row()
                if len(rungs) > 1:
                    row |= rungs.row(controller.transfer)
            row |= report.row() | generation.counts.row() | {"predicted_gain": predicted_gain(queue, sources)}
        self._rows.append(row | outcome(index - 1, rungs.of_base))
        return queue

    def _blind_share(self, report: FitReport, reached: float | None) -> float:
        """Of the proposals of a fit; 0 with an `mlp`, which says nothing of what it left out."""
        if self.config.predictor != "gp":
            return 0.0
        unranked = blind_share(report.heldout_rank_correlation, report.num_trials) if self.config.blind else 0.0
        return max(unranked, unpaid_share(reached) if self.config.unpaid else 0.0)

    def _ranked(
        self, rungs: Rungs, controller: Controller, several: Objectives | None, said: Early | None
    ) -> list[Observation]:
        """What a round may start from, best first; what is paused or under way by what is predicted of it."""
        known = rungs.of_base
        if several is not None:
            return [known[row] for row in pareto.crowded_order(several.measured)]
        if open_ones := [*rungs.paused, *([] if said is None else said.trials)]:
            expected, _ = controller.predict(self._tokens([seen.genotype for seen in open_ones]))
            known = known + [replace(seen, score=float(e)) for seen, e in zip(open_ones, expected, strict=True)]
        return sorted(known, key=lambda seen: (-(seen.score or 0.0), seen.trial_id))

    def foretell(self, trials: Sequence[Trial]) -> list[float] | None:
        """By the process, where it ranks what it left out of a higher rung better than the scores of `trials` do."""
        index = self._fit_index(self.num_asked)
        if self.config.predictor != "gp" or not index:
            return None
        known = self._memory.everything()
        rungs = Rungs(_completed(known))
        if rungs.base <= max(trial.proposal.fidelity.epochs or 0 for trial in trials):
            return None
        with one_thread():
            controller, _, rungs = self._fit_gp(index, known)
            if not rungs.predicts(controller, trials):
                return None
            expected, _ = controller.predict(np.stack([self.space.encode(trial.genotype) for trial in trials]))
        return [float(score) for score in expected]

    def prefers(self, paused: Sequence[Trial], running: Sequence[Trial]) -> Trial | None:
        """The one with the highest bound at the process's rung, if the bound of what would be asked next is lower."""
        index = self._fit_index(self.num_asked)
        if self.config.predictor != "gp" or not index or self.objectives or self.done:
            return None
        known = self._memory.everything()
        rungs = Rungs(_completed(known))
        if not rungs.judges(paused[0].proposal.fidelity.epochs or 0):
            return None
        new = [draft.genotype for draft in self._queue(index) if draft.genotype.key not in self.visited]
        asked = self._memory.pending(known).values()
        pending = self._tokens([*asked, *(trial.genotype for trial in running)])
        with one_thread():
            controller, _, _ = self._fit_gp(index, known)
            candidates = self._tokens([*(trial.genotype for trial in paused), *new])
            (first,) = controller.choose(candidates, 1, pending, self.config.spread_weight)
        return paused[first] if first < len(paused) else None

    def _tokens(self, genotypes: Sequence[Genotype]) -> Tokens:
        rows = [self.space.encode(genotype) for genotype in genotypes]
        return np.array(rows, dtype=np.int64).reshape(len(rows), self.space.length)

    def _several(self, completed: Sequence[Observation]) -> Objectives | None:
        """What is aimed at besides the score, with what was reached; None: nothing is."""
        if not self.objectives or self.figures is None or not completed:
            return None
        return Objectives(self.objectives, self.figures, np.array([seen.values for seen in completed]))

    def _known(self, index: int) -> list[Observation]:
        """The results of all rungs that fit `index` is given, by trial id; of a trial that was tried again, both."""
        count = self._fit_at(index)
        if self.config.mode == "rounds":
            told = [seen for seen in self._memory.told if self.number_of(seen.trial_id) < count]
        else:
            told = self._memory.told[:count]
        return self._memory.with_beside(index, told)

    def _fit_gp(self, index: int, known: Sequence[Observation]) -> _Process:
        """The process after what is `known`: of its base rung, with those below as sources."""
        pool = self._pool(index, known)
        given = [seen.trial_id for seen in known]
        if self._process is not None and self._process[0] == given:
            return self._process[1]
        config = self.config
        if self._pretrained is None:
            self._pretrained = pretrain(self.space.whole, config.epd, config.pretraining, self.seed, config.gp.views)
        tokens = np.stack([self.space.encode(seen.genotype) for seen in pool])
        scores = np.array([seen.score for seen in pool], dtype=np.float64)
        rungs = Rungs(_completed(known))
        sources = [
            *self._earlier.sources(self._pretrained, config.gp),
            *rungs.sources(foundation(self.space, self._pretrained, config.gp)),
        ]
        fitted = fit_process(self.space, self._pretrained, tokens, scores, config.spread_weight, config.gp, sources)
        self._process = given, (*fitted, rungs)
        return self._process[1]

    def _with_early(self, pool: Sequence[Observation], said: Early) -> GpController:
        """The process after these results and what is said of trainings under way."""
        assert self._pretrained is not None
        config, seen = self.config, [*pool, *said.trials]
        return GpController(
            self.space,
            self._pretrained,
            self._tokens([each.genotype for each in seen]),
            np.array([each.score for each in seen], dtype=np.float64),
            config.spread_weight,
            config.gp,
            self._earlier.sources(self._pretrained, config.gp),
            np.concatenate([np.zeros(len(pool)), said.doubt]),
        )

    def _fit(self, index: int) -> tuple[MlpController, FitReport]:
        """Fit `index`, with the fits before it where their weights live on."""
        start, first = None, index
        if self.config.keep_weights:
            first = 1
            if self._fitted is not None and self._fitted[0] < index:
                first, start = self._fitted[0] + 1, self._fitted[1]
        for number in range(first, index + 1):
            pool = self._pool(number, self._known(number))
            if len(pool) < _MIN_COMPLETED:
                continue
            controller, report = fit(
                self.space,
                np.stack([self.space.encode(seen.genotype) for seen in pool]),
                np.array([seen.score for seen in pool], dtype=np.float64),
                epd=self.config.epd,
                config=self.config.fit,
                draws=Draws(self.seed, number),
                start=start,
                device=self.config.device,
            )
            start = controller
        self._fitted = (index, controller)
        return controller, report

    def _pool(self, index: int, known: Sequence[Observation]) -> list[Observation]:
        """The completed trials a fit is trained on, of one rung, by trial id."""
        completed = Rungs(_completed(known)).of_base
        size = self.config.pool_size
        if size is None or len(completed) <= size:
            return completed
        new = [seen for seen in completed if seen.round == index - 1][-size:]
        old = [seen for seen in completed if seen.round != index - 1]
        best = sorted(old, key=lambda seen: (-(seen.score or 0.0), seen.trial_id))[: size - len(new)]
        return sorted(new + best, key=lambda seen: seen.trial_id)

    # -- results ------------------------------------------------------------------------------------------

    def note_asked(self, proposal: Proposal) -> None:
        self._memory.note_asked(proposal)

    def observe_retry(self, trial: Trial) -> None:
        if trial.proposal.parent_trial_id is None or self.config.predictor == "gp":  # an mlp knows the first rung alone
            self._memory.beside.append(self._observation(trial))

    def observe(self, trial: Trial) -> None:
        memory = self._memory
        if trial.proposal.parent_trial_id is not None:
            if trial.score is not None:
                self.observe_retry(trial)
            return
        memory.told.append(seen := self._observation(trial))
        if seen.course:  # which says the same, and more
            self.heard.pop(trial.trial_id, None)
        if self.num_told == self._limit:  # no fit will report on the last round
            last = memory.last_round
            row: dict[str, float | int | str | None] = {"round": last + 1, "num_trials": memory.num_scored}
            self._rows.append(row | outcome(last, Rungs(_completed([*memory.told, *memory.beside])).of_base))

    def _observation(self, trial: Trial) -> Observation:
        return self._memory.observation(trial, self.values_of(trial) or ())

    def diagnostics(self) -> list[Diagnostics]:
        """One row per fit, with what became of the round before it; a closing row after the last round.

        Columns: those of `FitReport` and of `GpController.row`; `blind_share`, `reached_share` (`nao_shares.py`);
        those of `Early.row`, where something is said of trainings under way; `recommended`, the id of the trial with
        the largest posterior mean of those known to the fit;
        `share_legal`, `share_unique`, `share_new` of `num_decoded` rows; `num_refilled`; `num_scored` by the
        predictor, and `num_scored_distinct` over all fits of this process; `predicted_gain` over the source trials'
        scores; `previous_realised_gain`, `previous_predicted_gain` and `previous_rank_correlation` (predicted against
        measured).
        """
        rows, self._rows = self._rows, []
        return rows


def _completed(observations: Sequence[Observation]) -> list[Observation]:
    return [seen for seen in observations if seen.score is not None]
