import xml.etree.ElementTree as ET

from corpusmill.pruning.loss_plot import MAX_POINTS, LossCurve, loss_curves_svg, thinned

NS = "{http://www.w3.org/2000/svg}"


def test_points_are_means_of_their_steps_and_the_last_step_is_among_them():
    assert thinned([4.0, 2.0, 3.0, 1.0], 2) == [(2, 3.0), (4, 2.0)]
    assert thinned([4.0, 2.0], 10) == [(1, 4.0), (2, 2.0)]
    assert thinned([], 5) == []
    points = thinned([float(i) for i in range(1000)], 7)
    assert len(points) == 7
    assert points[-1][0] == 1000


def test_a_plot_is_one_valid_document_with_a_line_for_each_seed_and_a_dot_for_each_measurement():
    falling = [10.0 / (i + 1) + 2 for i in range(5000)]
    curves = [LossCurve("seed0", falling, [(700, 3.5), (5000, 3.0)]), LossCurve("<seed1>", falling[:100])]
    root = ET.fromstring(loss_curves_svg(curves, "a <b> & c", {700: "14%"}))
    lines = root.findall(f"{NS}polyline")
    assert [len(line.get("points").split()) for line in lines] == [MAX_POINTS, 100]
    assert len(root.findall(f"{NS}circle")) == 2
    words = {text.text for text in root.findall(f"{NS}text")}
    assert {"a <b> & c", "14%", "<seed1>", "5000", "optimiser step"} <= words
    for line in lines:
        x, y = zip(*(map(float, pair.split(",")) for pair in line.get("points").split()), strict=True)
        assert min(x) >= 0
        assert max(x) <= 720
        assert 0 <= min(y) <= max(y) <= 400
    first, last = lines[0].get("points").split()[0], lines[0].get("points").split()[-1]
    assert float(first.split(",")[1]) < float(last.split(",")[1]), "a falling loss goes down the page"


def test_no_steps_and_one_constant_loss_are_drawn_too():
    for losses in ([], [2.0], [2.0] * 5):
        ET.fromstring(loss_curves_svg([LossCurve("a", losses)], "t"))
    assert loss_curves_svg([], "t") == loss_curves_svg([], "t")
