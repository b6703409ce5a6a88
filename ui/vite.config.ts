import { defineConfig } from "vite";

// What is built is committed, so that `cargo build` needs no npm: names are the same in each build, and nothing is inline.
export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    // The first with light-dark(), by which one line of a style sets the theme.
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    outDir: "dist",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
    rollupOptions: {
      output: {
        entryFileNames: "[name].js",
        chunkFileNames: "[name].js",
        assetFileNames: "[name][extname]",
      },
    },
  },
});
