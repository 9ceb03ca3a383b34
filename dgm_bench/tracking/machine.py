"""How busy this machine is, by the names that MLflow has for it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


class Machine:
    """CPU and memory where psutil is installed, GPUs where nvidia-ml-py is; else nothing."""

    def __init__(self) -> None:
        self._psutil: Any = None
        self._nvml: Any = None
        self._gpus: list[Any] = []
        with suppress(ImportError):
            import psutil

            psutil.cpu_percent()  # since when the next one counts
            self._psutil = psutil
        with suppress(Exception):  # there is no driver, or no package
            import pynvml

            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
            self._nvml = pynvml

    def numbers(self) -> dict[str, float]:
        """Return percentages, megabytes and watts; of the CPU since the last time."""
        found: dict[str, float] = {}
        if self._psutil is not None:
            memory = self._psutil.virtual_memory()
            found["cpu_utilization_percentage"] = self._psutil.cpu_percent()
            found["system_memory_usage_megabytes"] = (memory.total - memory.available) / 1e6
            found["system_memory_usage_percentage"] = memory.percent
        for index, gpu in enumerate(self._gpus):
            with suppress(Exception):  # not every GPU tells all
                found |= self._of_gpu(f"gpu_{index}", gpu)
        return found

    def _of_gpu(self, name: str, gpu: Any) -> dict[str, float]:  # noqa: ANN401
        memory = self._nvml.nvmlDeviceGetMemoryInfo(gpu)
        return {
            f"{name}_utilization_percentage": self._nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
            f"{name}_memory_usage_megabytes": memory.used / 1e6,
            f"{name}_memory_usage_percentage": 100 * memory.used / memory.total,
            f"{name}_power_usage_watts": self._nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        }
