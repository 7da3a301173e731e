"""Task `segmentation`: the organs and lesions of a hospital's imaging studies, with networks of MONAI.

    task_config   see `config`: classes, network, patch_size, spacing, intensity, loss, augment, validation, ...
    data          a folder of studies in one of the layouts of `fedbus.imaging.studies`, such as a Decathlon data set
    metrics       dice (mean over the classes of a case), dice/CLASS, loss

Begins in `task`; what a site prepares once stands in `cases`, what is drawn anew for each step in `augment`.
"""

from fedbus.tasks.segmentation.task import Segmentation

__all__ = ["Segmentation"]
