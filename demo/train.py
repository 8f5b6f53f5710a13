"""Train the demo's models from nothing: `python -m comfyui_calibri.demo.train`.

Three stages, each seeded and resumable: the autoencoder, the DiT with its text encoder, the
reward. The last step writes the files that ship with the pack to `demo/weights/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .train_autoencoder import train_autoencoder
from .train_dit import train_dit
from .train_reward import train_reward
from .weights import WEIGHTS, save_autoencoder, save_dit, save_reward, save_text_encoder


def main() -> None:
    """Parse the command line and run the stages that are not finished yet."""
    parser = argparse.ArgumentParser(prog="comfyui_calibri.demo.train", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".run/train"), help="state and caches")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the files are written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device, seed = torch.device(options.device), options.seed
    folder = options.folder / f"seed-{seed}"

    autoencoder = train_autoencoder(folder, seed, device)
    save_autoencoder(autoencoder, options.weights)
    reward = train_reward(autoencoder, folder, seed, device)
    save_reward(reward, options.weights)
    model = train_dit(autoencoder, folder, seed, device)
    save_text_encoder(model.text_encoder, options.weights)
    save_dit(model.dit, options.weights)
    print(f"Written to {options.weights}")


if __name__ == "__main__":
    main()
