// What is drawn: strokes of a pointer and cells of a grid painted by keys, each one step that can be undone.

const INSIDE = 80, PICTURE = 112, CELLS = 14;

export class Drawing {
  constructor(canvas, changed) {
    Object.assign(this, {canvas, changed, steps: [], cursor: [CELLS >> 1, CELLS >> 1], keys: false});
    canvas.addEventListener('pointerdown', event => this.begin(event));
    canvas.addEventListener('pointermove', event => this.go(event));
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, () => this.end());
    canvas.addEventListener('keydown', event => this.press(event));
    canvas.addEventListener('blur', () => { this.keys = false; this.show(); });
    this.show();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  begin(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.stroke = [this.point(event)];
    this.steps.push(this.stroke);
    this.show();
  }

  go(event) {
    if (!this.stroke) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) this.stroke.push(this.point(one));
    this.show();
  }

  end() {
    if (!this.stroke) return;
    this.stroke = null;
    this.changed();
  }

  press(event) {
    const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!move && event.key !== ' ') return;
    event.preventDefault();
    this.keys = true;
    if (move) this.cursor = this.cursor.map((at, k) => Math.max(0, Math.min(CELLS - 1, at + move[k])));
    const [x, y] = this.cursor;
    if (!move) {
      const there = this.steps.findIndex(step => step.cell === `${x},${y}`);
      if (there >= 0) this.steps.splice(there, 1);
      else this.steps.push(Object.assign([[(x + 0.5) / CELLS, (y + 0.5) / CELLS]], {cell: `${x},${y}`}));
    }
    const painted = this.steps.some(step => step.cell === `${x},${y}`);
    this.said?.(`column ${x + 1}, row ${y + 1}, ${painted ? 'painted' : 'empty'}`);
    this.show();
    if (!move) this.changed();
  }

  get empty() { return this.steps.length === 0; }
  undo() { this.steps.pop(); this.show(); this.changed(); }
  clear() { this.steps = []; this.show(); this.changed(); }

  paint(context, place, width) {
    context.lineCap = context.lineJoin = 'round';
    context.lineWidth = width;
    context.strokeStyle = '#000';
    for (const step of this.steps) {
      context.beginPath();
      step.forEach((point, n) => context[n ? 'lineTo' : 'moveTo'](...place(point)));
      if (step.length === 1) context.lineTo(...place(step[0]).map(at => at + 0.01));
      context.stroke();
    }
  }

  show() {
    const context = this.canvas.getContext('2d'), {width, height} = this.canvas;
    context.fillStyle = '#fff';
    context.fillRect(0, 0, width, height);
    this.paint(context, ([x, y]) => [x * width, y * height], width / 14);
    if (!this.keys) return;
    const [x, y] = this.cursor, cell = width / CELLS;
    context.strokeStyle = '#1f5aa6';
    context.lineWidth = 3;
    context.strokeRect(x * cell + 1.5, y * cell + 1.5, cell - 3, cell - 3);
  }

  /** RGBA of a square picture: the ink in its middle, its longer side five sevenths of the picture's. */
  picture() {
    const canvas = new OffscreenCanvas(PICTURE, PICTURE), context = canvas.getContext('2d');
    context.fillStyle = '#fff';
    context.fillRect(0, 0, PICTURE, PICTURE);
    const points = this.steps.flat(), ends = k => [Math.min(...points.map(p => p[k])), Math.max(...points.map(p => p[k]))];
    const [[left, right], [top, bottom]] = [ends(0), ends(1)];
    const scale = INSIDE / Math.max(right - left, bottom - top, 0.2);
    const place = ([x, y]) => [(x - (left + right) / 2) * scale + PICTURE / 2, (y - (top + bottom) / 2) * scale + PICTURE / 2];
    this.paint(context, place, PICTURE / 14);
    return {rgba: context.getImageData(0, 0, PICTURE, PICTURE).data, width: PICTURE, height: PICTURE};
  }
}
