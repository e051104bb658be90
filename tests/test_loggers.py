"""metrics.csv and TensorBoard: one continuous curve, also after a resume."""

import csv

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from lm.training.loggers.curves import METRICS, CSVCurve, TensorBoard


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_metrics_of_one_step_share_a_row_that_is_written_immediately(tmp_path):
    curve = CSVCurve(tmp_path, 0)
    curve.log_metrics({"train/loss": 2.5}, 10)
    assert read_csv(tmp_path / "metrics.csv")[0]["train/loss"] == "2.5"
    curve.log_metrics({"val/loss": 1.5}, 10)
    curve.log_metrics({"train/loss": 2.25}, 20)
    table = read_csv(tmp_path / "metrics.csv")
    assert [(r["step"], r["train/loss"], r["val/loss"]) for r in table] == [("10", "2.5", "1.5"), ("20", "2.25", "")]
    assert list(table[0]) == ["step", *METRICS]


def test_a_resumed_curve_drops_the_rows_after_its_checkpoint(tmp_path):
    curve = CSVCurve(tmp_path, 0)
    for step in (10, 20, 30):
        curve.log_metrics({"train/loss": step / 10}, step)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("40,4.")
    curve = CSVCurve(tmp_path, 20)
    curve.log_metrics({"train/loss": 9.0}, 30)
    assert [(r["step"], r["train/loss"]) for r in read_csv(tmp_path / "metrics.csv")] == [
        ("10", "1.0"),
        ("20", "2.0"),
        ("30", "9.0"),
    ]


def test_a_restarted_run_starts_a_new_curve(tmp_path):
    CSVCurve(tmp_path, 0).log_metrics({"train/loss": 1.0}, 10)
    CSVCurve(tmp_path, 0).log_metrics({"train/loss": 2.0}, 5)
    assert [r["step"] for r in read_csv(tmp_path / "metrics.csv")] == ["5"]


def test_tensorboard_has_one_continuous_curve_and_the_hyperparameters(tmp_path):
    first = TensorBoard(tmp_path / "run", 0)
    overrides = ["model=tiny", "name=mine", "+seed=1"]
    config = {"model": {"n_layer": 2}, "optimizer": {"lr": 0.001}, "seed": 1, "chosen": {"lr": 0.001, "floor": 1.0}}
    first.log_hyperparams(config | {"overrides": overrides})
    for step in (10, 20, 30):
        first.log_metrics({"val/loss": float(step)}, step)
    first.finalize("success")
    second = TensorBoard(tmp_path / "run", 20)
    for step in (30, 40):
        second.log_metrics({"val/loss": step + 0.5}, step)
    second.save()
    second.finalize("success")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("val/loss")] == [(10, 10.0), (20, 20.0), (30, 30.5), (40, 40.5)]
    assert events.Tags()["scalars"] == ["val/loss"]  # no hp_metric
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    data = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    assert b"val/loss" in data and b"mine" not in data
    columns = plugin_data_pb2.HParamsPluginData.FromString(data).experiment.hparam_infos
    assert [column.name for column in columns] == ["model", "seed", "optimizer.lr"]
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
    assert values["optimizer.lr"].number_value == 0.001 and values["model"].string_value == "tiny"
    assert [p.suffix for p in (tmp_path / "run").glob("*.yaml")] == []


def test_train_and_validation_loss_share_a_chart(tmp_path):
    from tensorboard.plugins.custom_scalar import layout_pb2

    board = TensorBoard(tmp_path / "run", 0)
    board.log_hyperparams({"seed": 1})
    board.finalize("success")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert ["train/loss", "val/loss"] in charts.values()
    tags = {tag for chart in charts.values() for tag in chart}
    assert {tag.strip("^$") for tag in tags} <= set(METRICS)


def test_text_that_is_not_utf_8_is_escaped_for_tensorboard(tmp_path):
    """Python represents bytes of a path that are not UTF-8 by lone surrogates, which protobuf rejects."""
    path = b"caf\xe9.txt".decode(errors="surrogateescape")
    board = TensorBoard(tmp_path / "run", 0)
    board.log_hyperparams({"corpus": {"path": path}, "overrides": [f"corpus.path={path}"]})
    board.finalize("success")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
    assert values["corpus.path"].string_value == r"caf\udce9.txt"
    (event,) = events.Tensors("config/text_summary")
    assert b"caf" in event.tensor_proto.string_val[0]
