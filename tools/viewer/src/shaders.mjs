// SPDX-License-Identifier: Apache-2.0
// A voxel in one draw call with all others: of a cube the three faces that look at the eye, or a
// square where cubes would take too long.

/** Corners of three quads: u, v and the axis that each is perpendicular to. */
export function voxelCorners() {
  const corners = [];
  for (let axis = 0; axis < 3; axis += 1) {
    corners.push(-1, -1, axis, 1, -1, axis, 1, 1, axis, -1, 1, axis);
  }
  return new Float32Array(corners);
}

export const VOXEL_INDEX = [0, 1, 2].flatMap((quad) =>
  [0, 1, 2, 0, 2, 3].map((corner) => 4 * quad + corner),
);
export const CUBE_INDICES = 18;
export const SQUARE_INDICES = 6;

export const VOXEL_VERTEX = `
in vec4 at;     // world centre, half size
in vec2 heat;   // part of the area's peak, time it ceased (below 0: fires)
uniform float now, fade, live, flatness, pixel;
uniform vec3 ramp[5];
out vec3 colour;
out vec2 corner;
void main() {
  float glow = heat.y < 0.0 ? live : exp((heat.y - now) / fade);
  float share = mix(0.25, 1.0, heat.x) * glow;
  if (at.w == 0.0 || glow < 0.02) {
    gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
    colour = vec3(0.0);
    corner = vec2(0.0);
    return;
  }
  vec4 centre = viewMatrix * vec4(at.xyz, 1.0);
  // Never smaller than a pixel: areas far away would flicker.
  float half_ = max(at.w * 0.88 * mix(0.4, 1.0, sqrt(glow)), pixel * -centre.z);
  float shade = 1.0;
  if (flatness > 0.5) {
    gl_Position = projectionMatrix * (centre + vec4(position.xy * half_, 0.0, 0.0));
  } else {
    vec3 toEye = cameraPosition - at.xyz;
    int axis = int(position.z);
    float side = toEye[axis] < 0.0 ? -1.0 : 1.0;
    vec3 offset = axis == 0 ? vec3(side, position.xy)
      : axis == 1 ? vec3(position.x, side, position.y) : vec3(position.xy, side);
    shade = axis == 1 ? (side > 0.0 ? 1.0 : 0.62) : axis == 2 ? 0.86 : 0.72;
    gl_Position = projectionMatrix * viewMatrix * vec4(at.xyz + offset * half_, 1.0);
  }
  float place = clamp(share, 0.0, 1.0) * 4.0;
  int step_ = min(int(place), 3);
  colour = mix(ramp[step_], ramp[step_ + 1], place - float(step_)) * shade;
  corner = position.xy;
}`;

export const VOXEL_FRAGMENT = `
in vec3 colour;
in vec2 corner;
out vec4 painted;
void main() {
  painted = vec4(colour, 1.0);
}`;
