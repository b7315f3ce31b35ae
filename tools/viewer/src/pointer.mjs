// SPDX-License-Identifier: Apache-2.0
// Pointing at voxels: hovering names one, a click or a tap chooses it.

const STILL_PX = 5; // a press that moves farther turns the camera

export class Pointer {
  /** `on`: {hover(voxel, x, y), choose(voxel)}; a voxel is {area, x, y, z} or null. */
  constructor(scene, on) {
    this.scene = scene;
    this.on = on;
    this.pressed = null;
    this.at = null;
    const { canvas } = scene;
    canvas.addEventListener("pointermove", (event) => {
      this.at = event.pointerType === "mouse" && event.buttons === 0 ? this.place(event) : null;
    });
    canvas.addEventListener("pointerleave", () => {
      this.at = null;
      on.hover(null, 0, 0);
    });
    canvas.addEventListener("pointerdown", (event) => {
      this.at = null;
      on.hover(null, 0, 0);
      this.pressed = this.place(event);
    });
    canvas.addEventListener("pointerup", (event) => {
      const { x, y } = this.place(event);
      const still =
        this.pressed !== null && Math.hypot(x - this.pressed.x, y - this.pressed.y) < STILL_PX;
      this.pressed = null;
      if (still) {
        on.choose(scene.voxelAt(x, y));
      }
    });
  }

  place(event) {
    const { left, top } = this.scene.canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  /** What is under a resting pointer changes with each burst: called now and then. */
  update() {
    if (this.at !== null) {
      const { x, y } = this.at;
      this.on.hover(this.scene.voxelAt(x, y), x, y);
    }
  }
}
