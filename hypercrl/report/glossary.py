"""What the columns of a report mean, and who defined them."""

from hypercrl.report.tables import Cell, Table

DEFINITIONS = (
    ("at the end", "1/N Σ_j R[N, j]", "average performance: Lopez-Paz and Ranzato 2017"),
    (
        "forgetting",
        "1/(N−1) Σ_{j<N} (R[j, j] − R[N, j])",
        "backward transfer of Lopez-Paz and Ranzato 2017, negated",
    ),
    (
        "Chaudhry",
        "1/(N−1) Σ_{j<N} (max_{1≤i<N} R[i, j] − R[N, j])",
        "forgetting of Chaudhry et al. 2018, from the best so far",
    ),
    (
        "Continual World",
        "1/N Σ_j (R[j, j] − R[N, j])",
        "forgetting of Wołczyk et al. 2021, over all N tasks",
    ),
    (
        "transfer",
        "1/(N−1) Σ_{j≥2} (R[j−1, j] − R[0, j])",
        "zero-shot forward transfer: Lopez-Paz and Ranzato 2017",
    ),
    (
        "AUC transfer",
        "mean over j ≥ 2 of (AUC_j − AUC_single) / (1 − AUC_single)",
        "AUC by trapezoids",
    ),
    (
        "transfer, Continual World",
        "the same over all j, AUC the plain mean of the evaluations",
        "Wołczyk et al. 2021",
    ),
    (
        "IQM",
        "mean of the middle half of seeds × tasks, with a 95 % stratified bootstrap interval",
        "Agarwal et al. 2021",
    ),
)


def glossary() -> Table:
    """R[i, j] is the result on task j of N after training on task i; row 0 is untrained."""
    rows = tuple(tuple(map(Cell, row)) for row in DEFINITIONS)
    return Table("Metrics and their authors", ("", "definition", "whose"), rows, (0, 1, 2))
