"""Training of members in parallel, with one bar over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tqdm.auto import tqdm

from sklmc._sklearn import Parallel


def run_parallel(
    tasks: Iterable, n_results: int, n_jobs, verbose: int, desc: str, note: Callable[[object], str]
) -> list:
    """Run delayed tasks, each of which returns a list, and join the lists in the tasks' order.

    verbose=1 shows a bar with the note on the last result, verbose=2 also one line per result.
    """
    try:
        results = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    except ValueError:  # a backend that gives its results only all at once
        results = Parallel(n_jobs=n_jobs)(tasks)
    done = []
    with tqdm(total=n_results, desc=desc, disable=verbose < 1) as bar:
        for result in (part for results_of_one in results for part in results_of_one):
            done.append(result)
            if verbose:
                text = note(result)
                if verbose > 1:
                    tqdm.write(f"{desc} {len(done)}/{n_results}: {text}")
                bar.set_postfix_str(text)
                bar.update()
    return done
