"""The report escapes what it is given."""

from tl_dagster.reporting.pictures import confusion_matrix, learning_curves
from tl_dagster.reporting.report import write_report


def test_self_contained_and_escaped(tmp_path):
    classes = ["<script>alert(1)</script>", "a|b$c"]
    confusion_matrix(tmp_path / "c.png", {"top_model": [[3, 1], [0, 4]]}, classes)
    history = [
        {"epoch": 0.0, "validation_log_loss": 1.0},
        {"epoch": 1.0, "training_loss": 1.0, "validation_log_loss": 0.9},
    ]
    learning_curves(tmp_path / "l.png", [(0.1, 0.5, 0.8)], 0.1, history, 1)
    metrics = dict.fromkeys(
        ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "macro_f1", "log_loss"), 0.5
    )
    pictures = {classes[0]: tmp_path / "c.png", "curves": tmp_path / "l.png"}
    write_report(tmp_path / "r.html", classes[0], "lead", {classes[0]: metrics}, pictures, [(classes[0], classes[0])])
    html = (tmp_path / "r.html").read_text()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "http://" not in html and "https://" not in html
    assert (tmp_path / "c.png").stat().st_size < 70_000
