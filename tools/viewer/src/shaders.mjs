// SPDX-License-Identifier: Apache-2.0
// A voxel in one draw call with all others: of a cube the three faces that look at the eye, or a
// square where cubes would take too long. Both read the voxel from textures by its number and not
// from attributes by instance: software renderers take each instance for a draw call of its own.

export const CUBE_CORNERS = 12;
export const CUBE_INDICES = 18;

/** Indices of `count` cubes: three quads of two triangles each. */
export function cubeIndex(count) {
  const index = new Uint32Array(CUBE_INDICES * count);
  for (let quad = 0; quad < 3 * count; quad += 1) {
    [0, 1, 2, 0, 2, 3].forEach((corner, place) => {
      index[6 * quad + place] = 4 * quad + corner;
    });
  }
  return index;
}

const COMMON = `
uniform highp sampler2D places; // world centre, half size (0: hidden)
uniform highp sampler2D heats;  // of two voxels each: part of the area's peak, time it ceased
uniform float now, fade, live, pixel;
uniform vec3 ramp[5];
out vec3 colour;
vec4 at;
float glow, halfSize;
// False where there is nothing to see.
bool look(int voxel) {
  int width = textureSize(places, 0).x;
  at = texelFetch(places, ivec2(voxel % width, voxel / width), 0);
  int pair = voxel / 2;
  vec4 both = texelFetch(heats, ivec2(pair % width, pair / width), 0);
  vec2 heat = voxel % 2 == 0 ? both.xy : both.zw;
  glow = heat.y < 0.0 ? live : exp((heat.y - now) / fade);
  float place = clamp(mix(0.25, 1.0, heat.x) * glow, 0.0, 1.0) * 4.0;
  int low = min(int(place), 3);
  colour = mix(ramp[low], ramp[low + 1], place - float(low));
  halfSize = at.w * 0.88 * mix(0.4, 1.0, sqrt(glow));
  return at.w > 0.0 && glow > 0.02;
}
const vec4 NOWHERE = vec4(2.0, 2.0, 2.0, 1.0);
`;

export const CUBE_VERTEX = `${COMMON}
void main() {
  if (!look(gl_VertexID / ${CUBE_CORNERS})) {
    gl_Position = NOWHERE;
    return;
  }
  // Never smaller than a pixel: areas far away would flicker.
  halfSize = max(halfSize, pixel * -(viewMatrix * vec4(at.xyz, 1.0)).z);
  int corner = gl_VertexID % ${CUBE_CORNERS};
  int axis = corner / 4;
  vec2 flat_ = vec2((corner + 1) % 4 < 2 ? -1.0 : 1.0, corner % 4 < 2 ? -1.0 : 1.0);
  float side = cameraPosition[axis] < at[axis] ? -1.0 : 1.0;
  vec3 offset = axis == 0 ? vec3(side, flat_)
    : axis == 1 ? vec3(flat_.x, side, flat_.y) : vec3(flat_, side);
  colour *= axis == 1 ? (side > 0.0 ? 1.0 : 0.62) : axis == 2 ? 0.86 : 0.72;
  gl_Position = projectionMatrix * viewMatrix * vec4(at.xyz + offset * halfSize, 1.0);
}`;

export const SQUARE_VERTEX = `${COMMON}
void main() {
  gl_PointSize = 0.0;
  if (!look(gl_VertexID)) {
    gl_Position = NOWHERE;
    return;
  }
  vec4 centre = viewMatrix * vec4(at.xyz, 1.0);
  gl_Position = projectionMatrix * centre;
  gl_PointSize = max(1.4, 1.4 * halfSize / (pixel * -centre.z));
}`;

export const FRAGMENT = `
in vec3 colour;
out vec4 painted;
void main() {
  painted = vec4(colour, 1.0);
}`;
