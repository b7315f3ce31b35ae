// SPDX-License-Identifier: Apache-2.0
// The store of voxels on the graphics card: two textures, and what draws them.

import {
  BufferAttribute,
  BufferGeometry,
  DataTexture,
  DoubleSide,
  FloatType,
  GLSL3,
  Group,
  Mesh,
  Points,
  RGBAFormat,
  ShaderMaterial,
} from "three";

import { CUBE_INDICES, CUBE_VERTEX, FRAGMENT, SQUARE_VERTEX, cubeIndex } from "./shaders.mjs";
import { FADE_S } from "./voxels.mjs";

const ROW = 512; // texels
const ROW_FLOATS = 4 * ROW;
const CUBES_UP_TO = 20000; // voxels; more of them are squares

/** A texture over a Float32Array of whole rows; what changed is sent by rows. */
function textureOf(array) {
  const texture = new DataTexture(array, ROW, array.length / ROW_FLOATS, RGBAFormat, FloatType);
  texture.needsUpdate = true;
  return texture;
}

/** Send floats `from` to `to` of the texture's array. */
function send(texture, from, to) {
  if (to <= from) {
    return;
  }
  const last = Math.ceil(to / ROW_FLOATS) * ROW_FLOATS;
  for (let at = from - (from % ROW_FLOATS); at < last; at += ROW_FLOATS) {
    texture.addUpdateRange(at, ROW_FLOATS);
  }
  texture.needsUpdate = true;
}

export class Cloud extends Group {
  constructor(voxels) {
    super();
    this.voxels = voxels;
    this.places = textureOf(voxels.at);
    this.heats = textureOf(voxels.heat);
    this.uniforms = {
      places: { value: this.places },
      heats: { value: this.heats },
      now: { value: 0 },
      fade: { value: FADE_S },
      live: { value: 1 },
      pixel: { value: 0 },
      ramp: { value: [] },
    };
    const material = (vertexShader) =>
      new ShaderMaterial({
        glslVersion: GLSL3,
        vertexShader,
        fragmentShader: FRAGMENT,
        uniforms: this.uniforms,
        side: DoubleSide,
      });
    const geometry = new BufferGeometry();
    geometry.setIndex(new BufferAttribute(cubeIndex(CUBES_UP_TO), 1));
    this.cubes = new Mesh(geometry, material(CUBE_VERTEX));
    this.squares = new Points(new BufferGeometry(), material(SQUARE_VERTEX));
    this.cubes.frustumCulled = false;
    this.squares.frustumCulled = false;
    this.add(this.cubes, this.squares);
  }

  /** Send what changed; `squares`: however few voxels there are. */
  update({ now, live, pixel, squares }) {
    const { voxels, uniforms } = this;
    const { moved, changed } = voxels.takeRanges();
    send(this.places, 4 * moved.from, 4 * moved.to);
    send(this.heats, 2 * changed.from, 2 * changed.to);
    const flat = squares || voxels.count > CUBES_UP_TO;
    this.cubes.visible = !flat;
    this.squares.visible = flat;
    this.cubes.geometry.setDrawRange(0, flat ? 0 : CUBE_INDICES * voxels.count);
    this.squares.geometry.setDrawRange(0, flat ? voxels.count : 0);
    uniforms.now.value = now;
    uniforms.live.value = live;
    uniforms.pixel.value = pixel;
  }
}
