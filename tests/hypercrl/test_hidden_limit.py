"""What could be found out of a hidden number: known where a single transition shows it."""

import torch
from hidden_limit import Episodes, error, estimated


def test_what_every_transition_shows_is_found_and_is_worth_as_much_as_being_told():
    """s' = s + z a with a about 0.3; z = ±1 stands in no observation."""
    torch.manual_seed(0)
    sign = 2.0 * torch.randint(2, (200, 1, 1)) - 1
    actions = 0.3 + 0.1 * torch.randn(200, 21, 1)
    steps = torch.cat([30 * torch.randn(200, 1, 1), sign * actions], 1)
    told = torch.cat([steps.cumsum(1), sign.expand(-1, 22, -1)], -1)
    data = Episodes(told, actions, seen=1, held=60)
    estimates, fit = estimated(data, updates=40)
    assert list(fit) == ["1", "5", "10", "20"]
    assert fit["5"] > 0.9
    assert not estimates[:, 0].any()  # before the first transition
    truth = data.hidden[:, None].expand(-1, 21, -1)
    known = {"told": truth, "none": truth[..., :0], "estimate": estimates}
    errors = {name: error(data, each, updates=40) for name, each in known.items()}
    assert errors["told"] < 0.4 * errors["none"]
    assert errors["estimate"] < 0.4 * errors["none"]
    # No motion is the best guess of who knows nothing: 0.3 k off after k of ten steps.
    assert abs(errors["none"] / (0.3 * 38.5**0.5) - 1) < 0.2
