"""What the columns of a report mean and who defined them; docs/metrics.md has the same table."""

from hypercrl.report.table import Cell, Table

HEADER = ("in a report", "in result.json", "definition", "whose", "range of success")
DEFINITIONS = (
    (
        "at the end",
        "average_performance",
        "1/N Σ_j R[N, j]",
        "Lopez-Paz and Ranzato 2017 (GEM)",
        "[0, 1]",
    ),
    (
        "forgetting",
        "forgetting",
        "1/(N−1) Σ_{j<N} (R[j, j] − R[N, j])",
        "Lopez-Paz and Ranzato 2017: their backward transfer, negated",
        "[−1, 1]",
    ),
    (
        "forgetting, Chaudhry",
        "chaudhry_forgetting",
        "1/(N−1) Σ_{j<N} (max_{1≤i<N} R[i, j] − R[N, j]): from the best so far",
        "Chaudhry et al. 2018",
        "[−1, 1]",
    ),
    (
        "forgetting, Continual World",
        "continual_world_forgetting",
        "1/N Σ_j (R[j, j] − R[N, j]): (N−1)/N of `forgetting`",
        "Wołczyk et al. 2021",
        "[−1, 1]",
    ),
    (
        "transfer",
        "forward_transfer",
        "1/(N−1) Σ_{j≥2} (R[j−1, j] − R[0, j]): before any training on j",
        "Lopez-Paz and Ranzato 2017",
        "[−1, 1]",
    ),
    (
        "AUC transfer",
        "–",
        "mean over j ≥ 2 of (AUC_j − AUC_single)/(1 − AUC_single), AUC by trapezoids from the "
        "beginning of j on, where single has R[0, j]",
        "after Wołczyk et al. 2021; trapezoids and j ≥ 2 are our own",
        "(−∞, 1]",
    ),
    (
        "transfer, Continual World",
        "–",
        "the same over all j, AUC the plain mean of the evaluations after the beginning of j",
        "Wołczyk et al. 2021",
        "(−∞, 1]",
    ),
    (
        "IQM",
        "–",
        "mean of the middle half of seeds × tasks at the end; 95 % bootstrap stratified by task",
        "Agarwal et al. 2021 (rliable)",
        "[0, 1]",
    ),
    (
        "normalised return",
        "–",
        "(R − R[0, j])/(single_j − R[0, j]): untrained is 0, an agent for j alone is 1; before all "
        "of the above",
        "after Mnih et al. 2015, who have a human for 1",
        "(−∞, ∞)",
    ),
    (
        "its growth",
        "–",
        "1/(N−1) Σ_{j<N} (E[N, j] − E[j, j]) of the prediction error E",
        "our own",
        "(−∞, ∞)",
    ),
)


def glossary() -> Table:
    """R[i, j] is the result on task j of N after training on task i; row 0 is untrained."""
    rows = tuple(tuple(map(Cell, row)) for row in DEFINITIONS)
    return Table("Metrics and their authors", HEADER, rows, (0, 1, 2, 3, 4))
