// SPDX-License-Identifier: Apache-2.0
// The areas and their voxels in three dimensions: drawing, the camera, and which voxel is under a
// point. Draws when told to; knows neither the server nor the lists beside it.

import {
  Box2,
  Box3,
  BufferGeometry,
  Color,
  DoubleSide,
  LineBasicMaterial,
  LineSegments,
  Mesh,
  MeshBasicMaterial,
  PerspectiveCamera,
  Ray,
  Scene,
  Vector2,
  Vector3,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

import { boxEdges, boxFloor } from "./boxes.mjs";
import { Cloud } from "./cloud.mjs";
import { paintLabels } from "./labels.mjs";
import { arrange } from "./layout.mjs";
import { voxelUnder } from "./pick.mjs";

const FIELD_DEGREES = 26;
const VIEW_FROM = new Vector3(0.28, 0.55, 1).normalize();
const MOST_PIXELS = 2; // per CSS pixel: more is not seen and costs
const GLIDE_MS = 350;
const FIT_ROUNDS = 8;
const FILLED = 0.84; // of the picture
const LABEL_PX = 40; // below the lowest area
const NEAREST = 4;

export class BrainScene {
  /** Throws where the browser has no WebGL 2. */
  constructor(canvas, labels, voxels, theme) {
    this.canvas = canvas;
    this.labels = labels;
    this.voxels = voxels;
    this.theme = theme;
    this.renderer = new WebGLRenderer({ canvas, antialias: !drawsInSoftware(), alpha: true });
    this.renderer.setClearColor(0x000000, 0);
    this.camera = new PerspectiveCamera(FIELD_DEGREES, 1, 0.1, 4000);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enableDamping = true;
    this.controls.dampingFactor = 0.14;
    this.controls.screenSpacePanning = true;
    this.controls.addEventListener("start", () => {
      this.untouched = false;
      this.glide = null;
    });
    this.controls.addEventListener("change", () => this.touch());
    canvas.addEventListener("webglcontextrestored", () => this.touch());
    this.untouched = true; // nobody has moved the camera: it follows what there is to see
    this.glide = null;
    this.selected = null;
    this.squares = false; // however few voxels there are
    this.now = 0; // seconds, of the newest picture
    this.pixel = 0; // world size of 0.7 pixels at the distance 1
    this.dirty = true;
    this.labelsDirty = true;
    this.showLabels = true;
    this.size = { width: 0, height: 0 };
    this.build();
    theme.follow(() => this.recolour());
  }

  build() {
    this.scene = new Scene();
    this.cloud = new Cloud(this.voxels);
    this.edges = new LineSegments(
      new BufferGeometry(),
      new LineBasicMaterial({ vertexColors: true, transparent: true, opacity: 0.75 }),
    );
    this.floors = new Mesh(
      new BufferGeometry(),
      new MeshBasicMaterial({
        vertexColors: true,
        transparent: true,
        opacity: 0.1,
        depthWrite: false,
        side: DoubleSide,
      }),
    );
    this.marker = new LineSegments(
      new BufferGeometry(),
      new LineBasicMaterial({ depthTest: false }),
    );
    for (const object of [this.edges, this.floors, this.marker]) {
      object.frustumCulled = false;
    }
    this.marker.renderOrder = 2;
    this.scene.add(this.floors, this.edges, this.cloud, this.marker);
  }

  recolour() {
    this.cloud.uniforms.ramp.value = this.theme.ramp.map((text) => {
      // The shader paints what the screen shows: no conversion.
      const whole = Number.parseInt(text.slice(1), 16);
      return new Vector3(whole >> 16, (whole >> 8) & 255, whole & 255).divideScalar(255);
    });
    this.marker.material.color = new Color(this.theme.inks.mark);
    this.frameAreas();
    this.touch();
  }

  get areas() {
    return [...this.voxels.areas.values()];
  }

  get seen() {
    return this.areas.filter((area) => !area.hidden);
  }

  touch() {
    this.dirty = true;
    this.labelsDirty = true;
  }

  /** After areas came, grew, went, or were hidden or shown. */
  relayout() {
    arrange(this.seen);
    this.voxels.place();
    this.frameAreas();
    if (this.untouched) {
      this.fit(false);
    }
    this.touch();
  }

  frameAreas() {
    const tints = Object.fromEntries(
      Object.entries(this.theme.series).map(([kind, text]) => [kind, new Color(text)]),
    );
    const tint = (area) => tints[area.kind] ?? tints.other;
    boxEdges(this.edges.geometry, this.seen, tint);
    boxFloor(this.floors.geometry, this.seen, tint);
  }

  /** The corners of everything that is not hidden. */
  corners() {
    return this.seen.flatMap(({ origin, pitch, width, height, depth }) =>
      [0, 1, 2, 3, 4, 5, 6, 7].map(
        (corner) =>
          new Vector3(
            origin[0] + (corner & 1 ? width * pitch[0] : 0),
            origin[1] + (corner & 2 ? height * pitch[1] : 0),
            origin[2] - (corner & 4 ? depth * pitch[2] : 0),
          ),
      ),
    );
  }

  /** Show everything that is not hidden, from the front and above. */
  fit(gliding = true) {
    const corners = this.corners();
    if (corners.length === 0) {
      return;
    }
    const { position, target } = this.viewOf(corners);
    if (gliding && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.glide = {
        since: performance.now(),
        from: [this.camera.position.clone(), this.controls.target.clone()],
        to: [position, target],
      };
    } else {
      this.glide = null;
      this.camera.position.copy(position);
      this.controls.target.copy(target);
    }
    this.touch();
  }

  /** Where to stand so that the corners just fill the picture, with room for labels. */
  viewOf(corners) {
    const right = new Vector3(0, 1, 0).cross(VIEW_FROM).normalize();
    const top = VIEW_FROM.clone().cross(right);
    const up = Math.tan((FIELD_DEGREES / 360) * Math.PI);
    const across = up * this.camera.aspect;
    const room = Math.min(0.5, LABEL_PX / Math.max(1, this.size.height));
    const box = new Box3().setFromPoints(corners);
    const target = box.getCenter(new Vector3());
    let distance = Math.max(NEAREST, box.getSize(new Vector3()).length() / up);
    for (let round = 0; round < FIT_ROUNDS; round += 1) {
      const position = target.clone().addScaledVector(VIEW_FROM, distance);
      const seen = new Box2();
      for (const corner of corners) {
        const offset = corner.clone().sub(position);
        const depth = Math.max(0.1, -offset.dot(VIEW_FROM));
        seen.expandByPoint(
          new Vector2(offset.dot(right) / (depth * across), offset.dot(top) / (depth * up)),
        );
      }
      const middle = seen.getCenter(new Vector2());
      const size = seen.getSize(new Vector2());
      target
        .addScaledVector(right, middle.x * across * distance)
        .addScaledVector(top, (middle.y - room) * up * distance);
      distance *= Math.max(size.x / 2 / FILLED, size.y / 2 / (FILLED - room));
      distance = Math.max(NEAREST, distance);
    }
    return { position: target.clone().addScaledVector(VIEW_FROM, distance), target };
  }

  /** Turn by radians around the middle, come nearer by a factor, move by parts of the picture. */
  turn(across, up) {
    this.byHand();
    const offset = this.camera.position.clone().sub(this.controls.target);
    const far = offset.length();
    const around = Math.atan2(offset.x, offset.z) + across;
    const limit = Math.PI / 2 - 0.01;
    const above = Math.max(-limit, Math.min(limit, Math.asin(offset.y / far) + up));
    offset.set(Math.sin(around) * Math.cos(above), Math.sin(above), Math.cos(around) * Math.cos(above));
    this.camera.position.copy(this.controls.target).addScaledVector(offset, far);
  }

  nearer(factor) {
    this.byHand();
    const { target } = this.controls;
    this.camera.position.sub(target).multiplyScalar(1 / factor).add(target);
  }

  shift(across, up) {
    this.byHand();
    const far = this.camera.position.distanceTo(this.controls.target);
    const step = new Vector3(across, up, 0)
      .multiplyScalar(far)
      .applyQuaternion(this.camera.quaternion);
    this.camera.position.add(step);
    this.controls.target.add(step);
  }

  byHand() {
    this.untouched = false;
    this.glide = null;
    this.touch();
  }

  resize(width, height) {
    const ratio = Math.min(MOST_PIXELS, devicePixelRatio || 1);
    this.size = { width, height };
    this.renderer.setPixelRatio(ratio);
    this.renderer.setSize(width, height, false);
    this.labels.width = Math.round(width * ratio);
    this.labels.height = Math.round(height * ratio);
    this.camera.aspect = width / Math.max(1, height);
    this.camera.updateProjectionMatrix();
    if (this.untouched) {
      this.fit(false);
    }
    this.touch();
  }

  /** Move what moves by itself; true when a picture has to be drawn. */
  advance(now) {
    if (this.glide !== null) {
      const part = Math.min(1, (now - this.glide.since) / GLIDE_MS);
      const eased = 1 - (1 - part) ** 3;
      this.camera.position.lerpVectors(this.glide.from[0], this.glide.to[0], eased);
      this.controls.target.lerpVectors(this.glide.from[1], this.glide.to[1], eased);
      this.glide = part < 1 ? this.glide : null;
      this.touch();
    }
    this.controls.update();
    return this.dirty;
  }

  /** Draw, at `now` seconds; `live` 0..1 dims what fires when nothing was heard for long. */
  draw(now, live) {
    this.now = now;
    const tall = this.renderer.getDrawingBufferSize(new Vector2()).y;
    this.pixel = (1.4 * Math.tan((FIELD_DEGREES / 360) * Math.PI)) / Math.max(1, tall);
    this.cloud.update({ now, live, pixel: this.pixel, squares: this.squares });
    this.markSelected();
    this.renderer.render(this.scene, this.camera);
    if (this.labelsDirty) {
      paintLabels(this);
      this.labelsDirty = false;
    }
    this.dirty = false;
  }

  markSelected() {
    const chosen = this.selected;
    this.marker.visible = chosen !== null && !chosen.area.hidden;
    if (this.marker.visible) {
      const { origin, pitch, half } = chosen.area;
      const box = {
        origin: [
          origin[0] + (chosen.x + 0.5) * pitch[0] - half,
          origin[1] + (chosen.y + 0.5) * pitch[1] - half,
          origin[2] - (chosen.z + 0.5) * pitch[2] + half,
        ],
        pitch: [2 * half, 2 * half, 2 * half],
        width: 1,
        height: 1,
        depth: 1,
      };
      boxEdges(this.marker.geometry, [box], () => this.marker.material.color);
    }
  }

  /** Where a cell is in the picture, in CSS pixels of the canvas; null behind the eye. */
  project(area, x, y, z) {
    const { origin, pitch } = area;
    return this.projectPoint(
      new Vector3(
        origin[0] + (x + 0.5) * pitch[0],
        origin[1] + (y + 0.5) * pitch[1],
        origin[2] - (z + 0.5) * pitch[2],
      ),
    );
  }

  projectPoint(point) {
    this.camera.updateMatrixWorld();
    const seen = point.clone().project(this.camera);
    if (seen.z > 1) {
      return null;
    }
    return {
      x: ((seen.x + 1) / 2) * this.size.width,
      y: ((1 - seen.y) / 2) * this.size.height,
    };
  }

  /** The voxel drawn at a point of the canvas, {area, x, y, z}, or null. */
  voxelAt(x, y) {
    this.camera.updateMatrixWorld();
    const { width, height } = this.size;
    const toward = new Vector3((2 * x) / width - 1, 1 - (2 * y) / height, 0.5)
      .unproject(this.camera)
      .sub(this.camera.position)
      .normalize();
    return voxelUnder(this.voxels, new Ray(this.camera.position, toward), this.now, this.pixel);
  }

  /** Voxels and labels as they stand on the screen, as a canvas. */
  picture() {
    const { canvas } = this;
    const made = document.createElement("canvas");
    [made.width, made.height] = [canvas.width, canvas.height];
    const context = made.getContext("2d");
    context.fillStyle = this.theme.inks.ground;
    context.fillRect(0, 0, made.width, made.height);
    // Without this the browser may have cleared what was shown.
    this.renderer.render(this.scene, this.camera);
    context.drawImage(canvas, 0, 0);
    context.drawImage(this.labels, 0, 0);
    return made;
  }
}

/** True where the processor draws, for which smooth edges are the dearest part of a picture. */
function drawsInSoftware() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const told = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = told ? gl.getParameter(told.UNMASKED_RENDERER_WEBGL) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software|basic render/i.test(name);
}
