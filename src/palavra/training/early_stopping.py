"""Early stopping (Prechelt 1998): end a run whose evaluations no longer improve."""

from palavra.training.checkpoint import RunState


def reason_to_stop(state: RunState, patience: int | None, eval_every: int | None) -> str | None:
    """Return why a run at `state` stops early: none of the last `patience` evaluations improved on the best.

    Returns None to continue: without patience or evaluations, or before `patience` evaluations without improvement.
    """
    if patience is None or eval_every is None or state.best_step is None:
        return None
    if state.step - state.best_step < patience * eval_every:
        return None
    return f"no improvement in {patience} evaluations since step {state.best_step}"
