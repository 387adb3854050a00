from matplotlib.figure import Figure

from paper import style


def drawing(value: float) -> Figure:
    with style.style():
        figure = Figure(figsize=(2, 1))
        figure.add_subplot().plot([0, 1], [0, value])
    return figure


def test_equal_figures_are_equal_files_and_ids_differ_between_figures(tmp_path):
    first, again, other = (style.to_svg(drawing(value)) for value in (1.0, 1.0, 2.0))
    assert first == again
    ids = [{part.split('"')[0] for part in svg.split(' id="')[1:]} for svg in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    files = [style.save(drawing(1.0), tmp_path / name) for name in ("a", "b")]
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_settings_come_back():
    import matplotlib as mpl

    before = mpl.rcParams["font.size"]
    drawing(1.0)
    assert mpl.rcParams["font.size"] == before
